// When a room connects, waits, gives a socket up, and ends, with the test as the edge, the clock and the page.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { connect } from "../../../clients/js/innkeeper.js";
import { World, events, stand } from "./fake.js";

const URL_ = "ws://house/parties/chat/lobby";
let world;

beforeEach(() => { world = new World(); });
afterEach(() => world.restore());

const open = (options = {}, url = URL_) => {
  const room = connect(url, { WebSocket: world.WebSocket, ...options });
  const seen = events(room);
  return { room, seen, of: (type) => seen.filter((event) => event[0] === type).map((event) => event[1]) };
};
const answer = (extra = {}) => world.socket.open().say({ hello: { conn: "c-1", at: "10-77", ...extra } });
const live = (options, extra) => {
  const here = open(options);
  answer(extra);
  return here;
};

/** A page around the client: what it listens to can be played. */
class Page {
  constructor(storage = new Map()) {
    globalThis.document = new EventTarget();
    globalThis.document.visibilityState = "visible";
    globalThis.location = new URL("https://house.example/some/page#part");
    globalThis.sessionStorage = {
      getItem: (key) => storage.get(key) ?? null, setItem: (key, value) => storage.set(key, value), removeItem: (key) => storage.delete(key),
    };
    this.storage = storage;
    this.listeners = new Map();
    globalThis.addEventListener = (type, run) => this.listeners.set(type, run);
    globalThis.removeEventListener = (type) => this.listeners.delete(type);
  }

  play(type, fields = {}) {
    this.listeners.get(type)?.({ type, ...fields });
  }

  show(state) {
    globalThis.document.visibilityState = state;
    globalThis.document.dispatchEvent(new Event("visibilitychange"));
  }

  gone() {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
}

test("waits double up to the most, less a random part of the jitter", () => {
  const { of } = open();
  for (let n = 0; n < 8; n += 1) {
    world.socket.die();
    world.pass(of("down").at(-1).waitMs);
  }
  assert.deepEqual(of("down").map((event) => event.waitMs), [250, 500, 1000, 2000, 4000, 8000, 15000, 15000]);
  assert.deepEqual(of("down").map((event) => event.attempt), [1, 2, 3, 4, 5, 6, 7, 8]);
  world.random = 0.5;
  world.socket.die();
  assert.equal(of("down").at(-1).waitMs, 11250);
});

test("a connection that lived for five seconds starts the waits anew, a shorter one does not", () => {
  const { of } = open();
  for (const [livedMs, waitMs] of [[0, 250], [4000, 500], [5001, 250], [0, 500]]) {
    world.socket.open().say({ resumed: { conn: "c-1", at: "10-77", accepted: 0 } });
    world.pass(livedMs);
    world.socket.die(1012);
    assert.equal(of("down").at(-1).waitMs, waitMs);
    world.pass(waitMs);
  }
});

test("own waits are taken, nonsense is refused", () => {
  const { of } = open({ backoff: { firstMs: 10, jitter: 0 } });
  world.socket.die();
  assert.equal(of("down")[0].waitMs, 10);
  for (const backoff of [{ firstMs: 0 }, { firstMs: NaN }, { factor: 0.5 }, { mostMs: 1 }, { jitter: 2 }]) {
    assert.throws(() => open({ backoff }), /backoff needs/);
  }
});

test("an edge that does not answer is given up after 15 s, and what it says later is not heard", () => {
  const { room, of } = open();
  const silent = world.socket.open();
  world.pass(14_999);
  assert.equal(silent.closedWith, null);
  world.pass(1);
  assert.equal(silent.closedWith, 3001);
  assert.deepEqual(of("down"), [{ code: 1006, reason: "no answer", waitMs: 250, attempt: 1 }]);
  world.pass(250);
  silent.say({ hello: { conn: "c-9", at: "1-1" } }, '2 "late"');
  silent.die(1000);
  assert.equal(room.state, "down");
  assert.deepEqual(of("message"), []);
  world.socket.open().say({ hello: { conn: "c-1", at: "10-77" } });
  world.pass(60_000);
  assert.equal(room.state, "open");
  assert.equal(world.sockets.length, 2);
});

test("a connection that fails counts once, whether a close follows the error or not", () => {
  const { of } = open();
  world.socket.fail();
  world.socket.die();
  assert.deepEqual(of("down"), [{ code: 1006, reason: "no connection", waitMs: 250, attempt: 1 }]);
  world.pass(250);
  answer();
  world.socket.fail();
  assert.equal(of("down").length, 1);
  world.socket.die(1002, "as the close says");
  assert.deepEqual(of("close"), [{ code: 1002, reason: "as the close says", final: true }]);
});

test("close leaves with 1000, breaks what waits, and ends every timer", async () => {
  const { room, of } = live();
  const sent = room.send("a");
  room.close();
  room.close();
  assert.equal(world.socket.closedWith, 1000);
  assert.equal(room.state, "closed");
  assert.deepEqual(of("close"), [{ code: 1000, reason: "left", final: true }]);
  assert.equal((await stand(sent))[1].applied, "unknown");
  const late = (await stand(room.send("b")))[1];
  assert.deepEqual([late.code, late.applied], ["closed", "no"]);
  assert.equal(world.timerCount, 0);
  room.reconnect();
  world.pass(60_000);
  assert.equal(world.sockets.length, 1);
});

test("close while it waits to come back ends that, too", () => {
  const { room } = live();
  world.socket.die();
  room.close();
  world.pass(60_000);
  assert.equal(world.sockets.length, 1);
});

test("reconnect gives the socket up without leaving and resumes at once", () => {
  const { room, of } = live();
  room.reconnect();
  assert.equal(world.socket.closedWith, 3001);
  world.pass(0);
  assert.equal(world.sockets.length, 2);
  assert.equal(world.socket.open().hello.last, "10-77");
  assert.deepEqual(of("down"), [{ code: 1006, reason: "connecting again", waitMs: 0, attempt: 1 }]);
});

test("a machine that slept connects again at once, an idle one does not", () => {
  const { room } = live();
  world.pass(600_000);
  assert.equal(world.sockets.length, 1);
  world.sleep(15_001);
  world.pass(0);
  assert.equal(world.sockets.length, 2);
  world.sleep(15_001);
  assert.equal(world.sockets.length, 3);
  assert.equal(room.state, "down");
});

test("something sent that nobody acknowledged for 12 s of silence is sent on another socket", () => {
  const { room } = live();
  room.send("a");
  for (let n = 0; n < 6; n += 1) {
    world.pass(11_000);
    world.socket.say(`${11 + n} "still alive"`);
  }
  assert.equal(world.sockets.length, 1);
  world.pass(15_000);
  assert.equal(world.sockets.length, 2);
  world.socket.open().say({ resumed: { conn: "c-1", at: "16-77", accepted: 0 } });
  assert.deepEqual(world.socket.messages, ['1 "a"']);
});

test("where the edge promises a beat, one that is 8 s late ends the socket", () => {
  live({}, { beat: 20 });
  for (let n = 0; n < 5; n += 1) {
    world.pass(27_000);
    world.socket.say({ at: "10-77" });
  }
  assert.equal(world.sockets.length, 1);
  world.pass(31_000);
  assert.equal(world.sockets.length, 2);
});

test("a page that is online again connects at once", () => {
  const page = new Page();
  const { room } = live();
  world.socket.die();
  page.play("online");
  assert.equal(world.sockets.length, 2);
  world.socket.open().say({ resumed: { conn: "c-1", at: "10-77", accepted: 0 } });
  page.play("online");
  world.pass(0);
  assert.equal(world.sockets.length, 3);
  room.close();
  assert.equal(page.listeners.size, 0);
  page.gone();
});

test("a tab that is looked at again connects at once if it waited, or was hidden and heard nothing for long", () => {
  const page = new Page();
  live();
  page.show("hidden");
  world.pass(20_000);
  page.show("visible");
  assert.equal(world.sockets.length, 1);
  page.show("hidden");
  world.sleep(60_000); // a hidden tab's timers are late: no evidence
  world.pass(0);
  assert.equal(world.sockets.length, 1);
  world.socket.say('11 "x"');
  page.show("visible");
  assert.equal(world.sockets.length, 1);
  page.show("hidden");
  world.pass(31_000);
  page.show("visible");
  world.pass(0);
  assert.equal(world.sockets.length, 2);
  world.socket.die();
  page.show("visible");
  assert.equal(world.sockets.length, 3);
  page.gone();
});

test("a page that goes for good leaves, one that may come back does not", () => {
  const page = new Page();
  const { room } = live();
  page.play("pagehide", { persisted: true });
  assert.equal(room.state, "open");
  page.play("pageshow", { persisted: true });
  world.pass(0);
  assert.equal(world.sockets.length, 2);
  world.socket.open();
  page.play("pagehide", { persisted: false });
  assert.equal(world.socket.closedWith, 1000);
  assert.equal(room.state, "closed");
  page.gone();
});

test("with storage a reloaded page takes its session up, and only one page has it", () => {
  const page = new Page();
  const { room } = live({ storage: "lobby" });
  room.send("a");
  const { secret } = world.socket.hello;
  assert.equal(page.storage.size, 0);
  page.play("pagehide", { persisted: false });
  assert.equal(world.socket.closedWith, null);
  assert.deepEqual(JSON.parse(page.storage.get("lobby")), { secret, generation: 1 });

  const reloaded = open({ storage: "lobby" });
  const early = reloaded.room.send("b");
  assert.deepEqual(world.socket.open().hello, { secret, generation: 2, last: "0-0" });
  assert.equal(page.storage.size, 0);
  world.socket.say({ resync: { conn: "c-1", at: "12-77", accepted: 7 } });
  assert.deepEqual(world.socket.messages, ['8 "b"']);
  assert.deepEqual(reloaded.of("resync"), [{ newSession: false }]);
  world.socket.say({ ack: 8 });
  reloaded.room.send("c");
  assert.equal(world.socket.messages.at(-1), '9 "c"');
  assert.ok(early);

  open({ storage: "lobby" });
  assert.notEqual(world.socket.open().hello.secret, secret);
  page.gone();
});

test("a stored session that is over is a new one, which is no news", () => {
  const page = new Page(new Map([["lobby", JSON.stringify({ secret: "ab".repeat(16), generation: 4 })]]));
  const { room, of } = open({ storage: "lobby" });
  room.send("a");
  assert.equal(world.socket.open().hello.generation, 5);
  world.socket.die(4410);
  world.pass(250);
  answer();
  assert.deepEqual(world.socket.messages, ['1 "a"']);
  assert.deepEqual(of("resync"), []);
  assert.deepEqual(of("open"), [{ resumed: false, connId: "c-1" }]);
  page.storage.set("broken", "{");
  open({ storage: "broken" });
  assert.equal(world.socket.open().hello.last, null);
  page.gone();
});

test("an address is a page's path or a whole URL, with the query added", () => {
  const page = new Page();
  open({ query: { name: "Ann & Bob", n: 1 } }, "/parties/chat/lobby?x=1");
  assert.equal(world.socket.url, "wss://house.example/parties/chat/lobby?x=1&name=Ann+%26+Bob&n=1");
  open({}, "http://other:81/parties/chat/a#part");
  assert.equal(world.socket.url, "ws://other:81/parties/chat/a");
  assert.throws(() => open({}, "ftp://other/"), /a room has a ws: or wss: URL/);
  page.gone();
  delete globalThis.location;
  assert.throws(() => open({}, "/parties/chat/lobby"), /outside a page a URL needs its host/);
});

test("protocols of the application follow the client's own", () => {
  open({ protocols: ["bearer.abc"] });
  assert.deepEqual(world.socket.protocols, ["innkeeper.v1", "bearer.abc"]);
});

test("options and values that cannot be are refused where they are given", () => {
  assert.throws(() => open({ codek: "raw" }), /connect has no option "codek"/);
  assert.throws(() => open({ codec: "xml" }), /codec is "json" or "raw"/);
  assert.throws(() => open({ WebSocket: null }), /pass a class as options.WebSocket/);
  const { room } = live();
  assert.throws(() => room.send(undefined), /JSON cannot hold undefined/);
  assert.throws(() => room.send(() => 1), /JSON cannot hold function/);
  assert.throws(() => room.send(1n), /BigInt/);
  room.send("fine");
  assert.deepEqual(world.socket.messages, ['1 "fine"']);
});

test("a promise that nobody looks at is no unhandled rejection", async () => {
  let unhandled = 0;
  const count = () => { unhandled += 1; };
  process.on("unhandledRejection", count);
  const { room } = live();
  room.send("a");
  room.close();
  room.send("b");
  await stand(Promise.resolve());
  await new Promise((yes) => setImmediate(yes));
  process.off("unhandledRejection", count);
  assert.equal(unhandled, 0);
});

test("with storage a reloaded page is where it was moved", () => {
  const page = new Page();
  live({ storage: "lobby" });
  world.socket.say({ moved: { room: "match/7", accepted: 0 } }, { hello: { conn: "c-2", at: "4-5" } });
  page.play("pagehide", { persisted: false });
  const stored = JSON.parse(page.storage.get("lobby"));
  assert.deepEqual([stored.generation, stored.room], [1, "match/7"]);
  const reloaded = open({ storage: "lobby" });
  assert.equal(world.socket.url, "ws://house/parties/match/7");
  assert.deepEqual(world.socket.open().hello, { secret: stored.secret, generation: 2, last: "0-0" });
  assert.equal(reloaded.room.url, world.socket.url);
  page.gone();
});
