// Innkeeper's client for browsers and Node, one file without dependencies. It speaks the subprotocol innkeeper.v1: a
// socket may break as often as it likes, what the room sends comes once and in order, what you send is applied once.
//
//   import { connect } from "/innkeeper.js";
//   const room = connect("/parties/chat/lobby", { query: { name: "Ann" } });
//   room.addEventListener("message", (event) => show(event.data));
//   await room.send({ text: "hello" }); // accepted: from now on it is applied whatever dies

const SUBPROTOCOL = "innkeeper.v1";
const ANSWER_MS = 15000; // the edge gives a join 10 s
const STEADY_MS = 5000; // a connection that lived so long starts the waits anew
const TICK_MS = 2500;
const SLEPT_MS = 10000; // a tick so late means that the machine slept
const UNHEARD_MS = 12000; // something sent is not acknowledged, and nothing at all was heard
const LATE_MS = 8000; // so much later than promised, the edge's sign of life is missing; before a grace of 30 s ends
const HIDDEN_MS = 30000; // a tab hidden so long, that heard nothing, does not trust its socket
const KEPT_COUNT = 256; // applied messages that are kept for a room that was rolled back
const KEPT_MS = 30000;
const LEAVE = 1000;
const DROP = 3001; // any close but 1000 leaves the session alive
const NOTHING_KNOWN = "0-0"; // an id that no log holds: answered with resync
const BACKOFF = { firstMs: 250, factor: 2, mostMs: 15000, jitter: 0.5 };
const RENEW_AT = 0.8; // of a token's time
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const ASK_AGAIN_MS = 5000;
const OPTIONS = new Set(["codec", "query", "token", "protocols", "WebSocket", "storage", "backoff"]);

/** Close codes and their reasons, as docs/handlers.md has them: those after which this client stays away ... */
export const FINAL_CODES = Object.freeze({
  1000: "", 1002: "protocol error", 1007: "invalid utf-8", 1008: "too many fragments", 1009: "message too big",
  4400: "bad frame", 4401: "token expired", 4403: "refused", 4404: "room destroyed", 4405: "kicked", 4409: "replaced", 4410: "session over",
});
/** ... and those after which it comes back. Of 4410 it does, too, with a new session. */
export const RETRY_CODES = Object.freeze({
  1012: "edge restarting", 1013: "try again later", 4503: "room full", 4507: "no answer to pings", 4508: "slow reader",
  4512: "resync", 4529: "too fast",
});
const TOO_BIG = 1009;
const RESTARTING = 1012;
const SESSION_OVER = 4410;
const EXPIRED = 4401;
const ROOM_FULL = 4503; // the refused join ended its session

/** Whether a close code is final: by the tables, else 3000-4499. */
export const isFinal = (code) => !(code in RETRY_CODES) && (code in FINAL_CODES || (code >= 3000 && code < 4500));

/** Why a message was not accepted or not applied. `applied`: "no", or "unknown" where nobody can say. */
export class RoomError extends Error {
  constructor(message, code, applied, n) {
    super(message);
    this.name = "RoomError";
    this.code = code;
    this.applied = applied;
    this.n = n;
  }
}

class RoomEvent extends Event {
  constructor(type, fields) {
    super(type);
    Object.assign(this, fields);
  }
}

const ignore = () => {};

/** A message on its way: two promises, of which nobody has to take care. */
class Sent {
  n = 0; // its number in the session, once it was written to a socket
  failure = null;
  sentAt = 0;
  appliedAt = 0;

  constructor(payload) {
    this.payload = payload;
    const applied = new Promise((yes, no) => ([this.apply, this.reject] = [yes, no]));
    this.promise = new Promise((yes, no) => ([this.accept, this.refuse] = [yes, no]));
    this.promise.applied = applied;
    this.promise.catch(ignore);
    applied.catch(ignore);
  }

  frame() {
    if (typeof this.payload === "string") return `${this.n} ${this.payload}`;
    const bytes = new Uint8Array(8 + this.payload.length);
    const head = new DataView(bytes.buffer);
    head.setUint32(0, Math.floor(this.n / 2 ** 32));
    head.setUint32(4, this.n % 2 ** 32);
    bytes.set(this.payload, 8);
    return bytes;
  }

  settle() {
    this.appliedAt = Date.now();
    if (this.failure) this.reject(this.failure);
    else this.apply();
  }

  fail(message, code, applied) {
    const error = new RoomError(message, code, applied, this.n || undefined);
    this.refuse(error);
    this.reject(error);
  }
}

/** What outlives a socket: the secret, the place in the room's log, and the messages that may be needed again. */
class Session {
  last = null; // the id after which to go on; null: the room never answered
  era = "";
  answered = false;
  count = 0; // the highest number given to a message
  accepted = 0;
  applied = 0;
  failed = 0; // the highest number an error was about
  refused = Infinity; // from this number on the edge took none
  kept = []; // numbered ones without gaps up to `count`, then those never written to a socket

  constructor(secret = drawSecret(), generation = 0) {
    this.secret = secret;
    this.generation = generation;
  }

  hello() {
    this.generation += 1;
    const { secret, generation, last } = this;
    return `!${JSON.stringify({ hello: { secret, generation, last } })}`;
  }

  goTo(at) {
    this.last = at;
    this.era = at.slice(at.indexOf("-") + 1);
  }

  /** Give a message its number and return its frame. */
  next(sent) {
    sent.n = this.count += 1;
    sent.sentAt = Date.now();
    return sent.frame();
  }

  /** Take what the room has accepted as the truth; return the frames to send again, or null: one of them is gone. */
  rewind(accepted) {
    if (accepted === this.count || this.count === 0) {
      this.ack(accepted);
      this.count = accepted;
    } else if (accepted < this.count && this.kept[0]?.n > 0 && this.kept[0].n <= accepted + 1) {
      this.ack(accepted);
    } else return null;
    this.accepted = accepted;
    this.applied = Math.min(this.applied, accepted);
    this.refused = Infinity;
    return this.kept.filter((sent) => sent.n === 0 || sent.n > accepted).map((sent) => {
      if (sent.n === 0) return this.next(sent);
      sent.sentAt = Date.now();
      return sent.frame();
    });
  }

  ack(n) {
    for (const sent of this.#between(this.accepted, n)) sent.accept();
    this.accepted = Math.max(this.accepted, n);
  }

  commit(n) {
    this.ack(n);
    for (const sent of this.#between(this.applied, n)) sent.settle();
    this.applied = Math.max(this.applied, n);
    const old = Date.now() - KEPT_MS;
    const { kept, applied } = this;
    let gone = 0;
    while (gone < kept.length && kept[gone].n > 0 && kept[gone].n <= applied
      && (kept[gone].n <= applied - KEPT_COUNT || kept[gone].appliedAt < old)) gone += 1;
    if (gone) kept.splice(0, gone);
  }

  /** Note that a message failed in the room; return whether that is news (a resume may tell it again). */
  fail(n, error) {
    if (n <= this.failed) return false;
    this.failed = n;
    for (const sent of this.#between(n - 1, n)) sent.failure = error;
    return true;
  }

  /** End in a room that has moved it; return what that room has not accepted, for the next room. */
  depart(accepted, room) {
    this.ack(accepted);
    const leaving = this.kept.filter((sent) => sent.n === 0 || sent.n > this.accepted);
    this.kept.length -= leaving.length; // of the others, `applied` may still be waited for
    this.end(`the room has moved this client to ${room}`, "moved");
    for (const sent of leaving) Object.assign(sent, { n: 0, failure: null, appliedAt: 0 });
    return leaving;
  }

  /** Note that the edge found a message too large: if any that it has not accepted is, then the largest. */
  refuseLargest() {
    const size = ({ payload }) => (typeof payload === "string" ? new TextEncoder().encode(payload) : payload).length;
    const sent = this.#between(this.accepted, this.count);
    if (sent.length) this.refused = sent.reduce((most, one) => (size(one) > size(most) ? one : most)).n;
  }

  end(message, code) {
    for (const sent of this.kept) sent.fail(message, code, sent.n === 0 || sent.n >= this.refused ? "no" : "unknown");
    this.kept = [];
  }

  /** The first message the edge has not taken, of those written to a socket. */
  get waiting() {
    return this.#between(this.accepted, this.accepted + 1)[0];
  }

  #between(after, to) {
    const first = this.kept.length ? this.kept[0].n : 0;
    return first ? this.kept.slice(Math.max(0, after + 1 - first), Math.max(0, Math.min(to, this.count) + 1 - first)) : [];
  }
}

function drawSecret() {
  if (!globalThis.crypto?.getRandomValues) {
    throw new Error("no crypto.getRandomValues here: start Node 18 with --experimental-global-webcrypto");
  }
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A room seen from here, through as many sockets as it takes. Made by `connect`. */
export class Room extends EventTarget {
  #options;
  #session;
  #socket = null;
  #state = "connecting";
  #connId = "";
  #timer = 0;
  #ticker = 0;
  #going = 0;
  #tickedAt = Date.now();
  #attempts = 0;
  #openAt = 0;
  #heardAt = 0;
  #hiddenAt = 0;
  #beatMs = 0;
  #isNew = false; // a session took the place of one that was lost, and the room has not answered it yet
  #unlisten = [];
  #room; // where it was moved
  #dialing = null; // what waits for a token to connect with
  #renewing = 0;

  constructor(url, options = {}) {
    super();
    this.#options = check(options);
    this.url = absolute(url, options.query);
    this.#session = this.#restored() ?? new Session();
    this.#attempt();
    this.#listen();
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
    this.#ticker.unref?.(); // alone it keeps no Node program alive
  }

  /** "connecting", "open", "down" (it comes back by itself) or "closed" (it does not). */
  get state() {
    return this.#state;
  }

  /** This connection's public id in the room (`conn.id`), "" before the room's first answer. */
  get connId() {
    return this.#connId;
  }

  /** Send a value; the promise is fulfilled once it is accepted, its `.applied` once the room has handled it. */
  send(value) {
    const sent = new Sent(encode(this.#options.codec, value));
    if (this.#state === "closed") {
      sent.fail("the room is closed", "closed", "no");
      return sent.promise;
    }
    this.#session.kept.push(sent);
    if (this.#state === "open") this.#socket.send(this.#session.next(sent));
    return sent.promise;
  }

  /** Leave the room for good. */
  close() {
    this.#end(LEAVE, "left", LEAVE);
  }

  /** Give the socket up and resume at once on another. */
  reconnect() {
    this.#hop(1006, "connecting again");
  }

  #hop(code, reason) {
    if (this.#state === "closed") return;
    this.#detach(DROP);
    if (this.#state === "open") this.#retry(code, reason, true);
    else this.#attempt();
  }

  /** Go to another edge before this one stops, at a moment of this client's own: so that not all come at once. */
  #leaveWithin(ms) {
    const socket = this.#socket;
    const go = () => this.#socket === socket && this.#hop(RESTARTING, RETRY_CODES[RESTARTING]);
    clearTimeout(this.#going);
    this.#going = setTimeout(go, Math.random() * 0.7 * ms);
  }

  // --- one socket after another ---------------------------------------------------------------------------------
  #attempt() {
    const { token } = this.#options;
    this.#expect();
    if (typeof token !== "function") return this.#dial(token);
    const mine = {};
    this.#dialing = mine;
    return this.#ask().then((text) => this.#dialing === mine && this.#dial(text)).catch((error) => {
      if (this.#dialing === mine) this.#retry(1006, `no token: ${error.message}`);
    });
  }

  #dial(token) {
    const { WebSocket, protocols } = this.#options;
    const socket = new WebSocket(this.url, [SUBPROTOCOL, ...(token ? [`bearer.${token}`] : []), ...protocols]);
    const mine = (handler) => (event) => this.#socket === socket && handler(event);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    let wasOpened = false;
    socket.onopen = mine(() => {
      wasOpened = true;
      if (socket.protocol === SUBPROTOCOL) socket.send(this.#session.hello());
      else this.#end(1002, "the server does not speak innkeeper.v1", DROP);
    });
    socket.onmessage = mine((event) => this.#heard(event.data));
    socket.onerror = mine(() => wasOpened || this.#closed(1006, "no connection")); // Node 20 sends no close after it
    socket.onclose = mine((event) => this.#closed(event.code, event.reason));
  }

  async #ask() {
    const token = await this.#options.token();
    if (typeof token !== "string" || !token) throw new TypeError("options.token() gave no text");
    return token;
  }

  /** Send a new token before the one of the moment expires. */
  #renewIn(seconds) {
    clearTimeout(this.#renewing);
    if (typeof this.#options.token !== "function") return;
    this.#renewing = setTimeout(() => {
      this.#ask().then(
        (token) => this.#state === "open" && this.#socket.send(`!${JSON.stringify({ token })}`),
        () => this.#renewIn(ASK_AGAIN_MS / 1000 / RENEW_AT),
      );
    }, Math.min(seconds * 1000 * RENEW_AT, LONGEST_TIMER_MS));
    this.#renewing.unref?.();
  }

  /** Go to another room with what this one has not accepted, on the socket of the moment if that lasts. */
  #moved({ room, accepted }) {
    const kept = this.#session.depart(accepted, room);
    this.#goTo(room);
    this.#session = Object.assign(new Session(), { kept });
    this.#isNew = false;
    this.#state = "connecting";
    this.#expect();
    this.#socket.send(this.#session.hello());
    this.#tell("moved", { room });
  }

  #goTo(room) {
    const url = new URL(this.url);
    url.pathname = url.pathname.replace(/[^/]+\/[^/]+$/, () => room);
    [this.url, this.#room] = [url.href, room];
  }

  #expect() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#detach(DROP);
      this.#retry(1006, "no answer");
    }, ANSWER_MS);
  }

  #detach(code) {
    const socket = this.#socket;
    this.#socket = this.#dialing = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#going);
    socket?.close(code);
  }

  #closed(code, reason) {
    this.#socket = null;
    if (code === SESSION_OVER || (code === ROOM_FULL && !this.#session.answered)) this.#renew(code, reason);
    else if (isFinal(code) && !(code === EXPIRED && typeof this.#options.token === "function")) this.#end(code, reason);
    else this.#retry(code, reason);
  }

  #retry(code, reason, atOnce = false) {
    clearTimeout(this.#timer);
    clearTimeout(this.#renewing);
    this.#dialing = null;
    const { firstMs, factor, mostMs, jitter } = this.#options.backoff;
    if (this.#openAt && Date.now() - this.#openAt > STEADY_MS) this.#attempts = 0;
    this.#openAt = 0;
    const wholeMs = Math.min(mostMs, firstMs * factor ** this.#attempts);
    const waitMs = atOnce ? 0 : wholeMs * (1 - jitter * Math.random());
    this.#attempts += 1;
    this.#state = "down";
    this.#timer = setTimeout(() => this.#attempt(), waitMs);
    this.#tell("down", { code, reason, waitMs, attempt: this.#attempts });
  }

  /** The session is lost: begin another, and tell those who wait. Of one that was never answered nothing was lost. */
  #renew(code, why) {
    const old = this.#session;
    this.#session = new Session();
    if (!old.answered) this.#session.kept = old.kept;
    this.#isNew ||= old.answered;
    this.#retry(code, why, old.answered);
    if (old.answered) old.end(`the session ended: ${why}`, "session_over");
  }

  #end(code, reason, socketCode = DROP) {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#detach(socketCode);
    clearInterval(this.#ticker);
    clearTimeout(this.#renewing);
    for (const unlisten of this.#unlisten) unlisten();
    if (code === TOO_BIG && reason === FINAL_CODES[TOO_BIG]) this.#session.refuseLargest();
    this.#session.end(`the connection ended: ${code} ${reason}`.trim(), "closed");
    this.#tell("close", { code, reason, final: true });
  }

  // --- what comes down ------------------------------------------------------------------------------------------
  #heard(data) {
    this.#heardAt = Date.now();
    try {
      if (typeof data !== "string") {
        const head = new DataView(data);
        this.#output(head.getUint32(0) * 2 ** 32 + head.getUint32(4), new Uint8Array(data, 8));
      } else if (data.startsWith("!")) {
        this.#control(JSON.parse(data.slice(1)));
      } else {
        const space = data.indexOf(" ");
        this.#output(Number(data.slice(0, space)), data.slice(space + 1));
      }
    } catch (error) {
      this.#end(1002, `the server broke innkeeper.v1: ${error.message}`);
    }
  }

  #output(seq, payload) {
    if (!(seq > 0) || this.#state !== "open") throw new Error("an output without a number, or before the first answer");
    this.#session.last = `${seq}-${this.#session.era}`;
    let data = payload;
    if (typeof payload === "string" && this.#options.codec === "json") {
      try {
        data = JSON.parse(payload);
      } catch {
        return this.#tell("error", { code: "not_json", n: undefined, detail: { seq, payload } });
      }
    }
    return this.#tell("message", { data, seq });
  }

  #control(word) {
    const session = this.#session;
    const answer = word.hello ?? word.resumed ?? word.resync;
    if (answer) return this.#answered(answer, word);
    if (word.moved) return this.#moved(word.moved);
    if (word.expires !== undefined) this.#renewIn(word.expires);
    if (word.era !== undefined) session.era = word.era;
    if (word.at !== undefined) session.goTo(word.at);
    if (word.ack !== undefined) session.ack(word.ack);
    if (word.applied !== undefined) session.commit(word.applied);
    if (word["close-soon"] !== undefined) this.#leaveWithin(word["close-soon"] * 1000);
    if (word.error !== undefined) {
      const { error: code, n, at, ...detail } = word;
      if (code === "out_of_order") session.refused = word.expected;
      const error = new RoomError(`the room could not handle message ${n}: ${code}`, code, "no", n);
      if (n === undefined || session.fail(n, error)) this.#tell("error", { code, n, detail });
    }
    return undefined;
  }

  #answered(answer, word) {
    const session = this.#session;
    const [wasOpen, isFresh] = [this.#state === "open", this.#isNew];
    const frames = session.rewind(answer.accepted ?? 0);
    if (frames === null) {
      this.#detach(LEAVE); // of the session that cannot go on
      return this.#renew(SESSION_OVER, "the room forgot messages that are not kept any more");
    }
    clearTimeout(this.#timer);
    session.goTo(answer.at);
    session.answered = true;
    this.#isNew = false;
    this.#beatMs = (answer.beat ?? this.#beatMs / 1000) * 1000;
    this.#connId = answer.conn ?? this.#connId;
    this.#state = "open";
    this.#openAt ||= Date.now();
    if (answer.expires !== undefined) this.#renewIn(answer.expires);
    for (const frame of frames) this.#socket.send(frame);
    if (!wasOpen) this.#tell("open", { resumed: !word.hello, connId: this.#connId });
    if (word.resync || isFresh) this.#tell("resync", { newSession: isFresh });
    return undefined;
  }

  #tell(type, fields) {
    this.dispatchEvent(new RoomEvent(type, fields));
  }

  // --- sockets that are dead and do not say so ------------------------------------------------------------------
  #tick() {
    const now = Date.now();
    const slept = now - this.#tickedAt - TICK_MS > SLEPT_MS;
    this.#tickedAt = now;
    if (slept && !this.#isHidden) this.reconnect(); // the timers of hidden tabs are always late
    else if (this.#state === "open") {
      const silentMs = now - this.#heardAt;
      const waitedMs = now - (this.#session.waiting?.sentAt ?? now);
      if (Math.min(silentMs, waitedMs) > UNHEARD_MS || (this.#beatMs && silentMs > this.#beatMs + LATE_MS)) this.reconnect();
    }
  }

  get #isHidden() {
    return globalThis.document?.visibilityState === "hidden";
  }

  #seen() {
    const now = Date.now();
    if (this.#isHidden) this.#hiddenAt = now;
    else if (this.#state === "down") this.reconnect();
    else if (this.#state === "open" && now - Math.max(this.#hiddenAt, this.#heardAt) > HIDDEN_MS) this.reconnect();
    this.#tickedAt = now;
  }

  #listen() {
    const on = (target, type, handler) => {
      if (!target?.addEventListener) return;
      target.addEventListener(type, handler);
      this.#unlisten.push(() => target.removeEventListener(type, handler));
    };
    if (globalThis.document === undefined) return;
    on(globalThis.document, "visibilitychange", () => this.#seen());
    on(globalThis, "online", () => this.reconnect());
    on(globalThis, "pagehide", (event) => {
      if (this.#options.storage) this.#save();
      else if (!event.persisted) this.close(); // the others need not wait for the end of the grace
    });
    on(globalThis, "pageshow", (event) => {
      if (!event.persisted) return;
      if (this.#options.storage) this.#restored();
      this.reconnect();
    });
  }

  // The secret lies in the storage only while no page uses it: a duplicated tab must not take this one's session.
  #save() {
    const { secret, generation, answered } = this.#session;
    const saved = JSON.stringify({ secret, generation, room: this.#room });
    if (answered) globalThis.sessionStorage?.setItem(this.#options.storage, saved);
  }

  #restored() {
    const { storage } = this.#options;
    const text = storage ? globalThis.sessionStorage?.getItem(storage) : null;
    if (!text) return null;
    globalThis.sessionStorage.removeItem(storage);
    try {
      const { secret, generation, room } = JSON.parse(text);
      const session = new Session(secret, generation);
      if (room) this.#goTo(room);
      session.last = NOTHING_KNOWN;
      return session;
    } catch {
      return null;
    }
  }
}

/** Connect to a room: `wss://host/parties/kind/name`, or "/parties/kind/name" of the page's own host. */
export function connect(url, options) {
  return new Room(url, options);
}

function check(options) {
  for (const name of Object.keys(options)) {
    if (!OPTIONS.has(name)) throw new TypeError(`connect has no option "${name}", only ${[...OPTIONS].join(", ")}`);
  }
  const { codec = "json", token = "", protocols = [], WebSocket = globalThis.WebSocket, storage = "" } = options;
  const backoff = { ...BACKOFF, ...options.backoff };
  if (codec !== "json" && codec !== "raw") throw new TypeError(`codec is "json" or "raw", not ${codec}`);
  if (typeof WebSocket !== "function") throw new TypeError("no WebSocket here: pass a class as options.WebSocket (Node before 22)");
  const { firstMs, factor, mostMs, jitter } = backoff;
  if (!(firstMs > 0 && factor >= 1 && mostMs >= firstMs && jitter >= 0 && jitter <= 1)) {
    throw new RangeError("backoff needs firstMs > 0, factor >= 1, mostMs >= firstMs and jitter from 0 to 1");
  }
  if (typeof token !== "string" && typeof token !== "function") throw new TypeError("token is text, or a function that returns it");
  return { codec, token, protocols, WebSocket, storage, backoff };
}

function absolute(url, query = {}) {
  if (!globalThis.location && !/^[a-z]+:/i.test(url)) throw new TypeError(`outside a page a URL needs its host: ${url}`);
  const whole = new URL(url, globalThis.location?.href);
  whole.protocol = { "http:": "ws:", "https:": "wss:" }[whole.protocol] ?? whole.protocol;
  if (whole.protocol !== "ws:" && whole.protocol !== "wss:") throw new TypeError(`a room has a ws: or wss: URL, not ${url}`);
  whole.hash = "";
  for (const [name, value] of Object.entries(query)) whole.searchParams.set(name, value);
  return whole.href;
}

function encode(codec, value) {
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength).slice();
  if (value instanceof ArrayBuffer) return new Uint8Array(value.slice(0));
  if (codec === "raw") {
    if (typeof value === "string") return value;
    throw new TypeError("a raw room takes strings, ArrayBuffers and typed arrays");
  }
  const text = JSON.stringify(value);
  if (text === undefined) throw new TypeError(`JSON cannot hold ${typeof value}`);
  return text;
}
