// A world under a test's thumb: time that moves only when told, and sockets whose other end the test plays.
import { mock } from "node:test";

const REAL = { ...globalThis };
const NAMES = ["setTimeout", "clearTimeout", "setInterval", "clearInterval"];

export class World {
  nowMs = 1_000_000;
  random = 0;
  sockets = [];
  #timers = new Map();
  #id = 0;

  constructor() {
    const world = this;
    globalThis.setTimeout = (run, ms = 0) => world.#add(run, ms, 0);
    globalThis.setInterval = (run, ms) => world.#add(run, ms, ms);
    globalThis.clearTimeout = globalThis.clearInterval = (id) => world.#timers.delete(id);
    mock.method(Date, "now", () => world.nowMs);
    mock.method(Math, "random", () => world.random);
    this.WebSocket = class extends FakeSocket {
      constructor(url, protocols) {
        super(url, protocols);
        world.sockets.push(this);
      }
    };
  }

  restore() {
    for (const name of NAMES) globalThis[name] = REAL[name];
    mock.restoreAll();
    for (const name of ["document", "location", "sessionStorage"]) delete globalThis[name];
  }

  #add(run, ms, everyMs) {
    this.#id += 1;
    this.#timers.set(this.#id, { at: this.nowMs + ms, everyMs, run });
    return this.#id;
  }

  /** Let time pass, and every timer run at its moment. */
  pass(ms) {
    const end = this.nowMs + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, timer]) => timer.at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      const [id, timer] = due;
      this.nowMs = Math.max(this.nowMs, timer.at);
      if (timer.everyMs) timer.at = this.nowMs + timer.everyMs;
      else this.#timers.delete(id);
      timer.run();
    }
    this.nowMs = end;
  }

  /** Let the machine sleep: the clock goes on, and every timer that came due runs once, late. */
  sleep(ms) {
    this.nowMs += ms;
    this.pass(0);
  }

  get timerCount() {
    return this.#timers.size;
  }

  get socket() {
    return this.sockets.at(-1);
  }
}

class FakeSocket {
  sent = [];
  protocol = "";
  closedWith = null;

  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
  }

  send(data) {
    this.sent.push(typeof data === "string" ? data : Buffer.from(data).toString("latin1"));
  }

  close(code) {
    this.closedWith = code;
  }

  open(protocol = "innkeeper.v1") {
    this.protocol = protocol;
    this.onopen({});
    return this;
  }

  /** Send control words, or what is to be sent as it is. */
  say(...frames) {
    for (const frame of frames) {
      const isWord = typeof frame === "object" && !(frame instanceof ArrayBuffer);
      this.onmessage({ data: isWord ? `!${JSON.stringify(frame)}` : frame });
    }
    return this;
  }

  die(code = 1006, reason = "") {
    this.onclose({ code, reason });
  }

  fail() {
    this.onerror({});
  }

  /** The words of its hello. */
  get hello() {
    return JSON.parse(this.sent[0].slice(1)).hello;
  }

  /** What was sent after the hello. */
  get messages() {
    return this.sent.slice(1);
  }
}

/** Keep the events of a room as [type, fields]. */
export function events(room) {
  const seen = [];
  for (const type of ["open", "message", "resync", "moved", "down", "error", "close"]) {
    room.addEventListener(type, (event) => {
      const fields = Object.entries(event).filter(([name]) => name !== "isTrusted");
      seen.push([type, Object.fromEntries(fields)]);
    });
  }
  return seen;
}

/** How a promise stands: "waits", ["kept", value] or ["broken", error]. */
export async function stand(promise) {
  const nothing = Symbol("nothing");
  return Promise.race([promise, new Promise((yes) => REAL.setImmediate(yes, nothing))]).then(
    (value) => (value === nothing ? "waits" : ["kept", value]),
    (error) => ["broken", error],
  );
}

/** The bytes of a binary frame down. */
export function binary(seq, ...payload) {
  const bytes = new Uint8Array(8 + payload.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(seq));
  bytes.set(payload, 8);
  return bytes.buffer;
}
