// What a session promises across sockets, with the test as the edge.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { FINAL_CODES, RETRY_CODES, connect, isFinal } from "../../../clients/js/innkeeper.js";
import { World, binary, events, stand } from "./fake.js";

const URL_ = "ws://house/parties/chat/lobby";
let world;

beforeEach(() => { world = new World(); });
afterEach(() => world.restore());

const open = (options = {}) => {
  const room = connect(URL_, { WebSocket: world.WebSocket, ...options });
  const seen = events(room);
  return { room, seen, of: (type) => seen.filter((event) => event[0] === type).map((event) => event[1]) };
};
const live = (options) => {
  const here = open(options);
  world.socket.open().say({ hello: { conn: "c-1", at: "10-77" } });
  return here;
};
/** Break the socket, and let the next one open and say hello. */
const again = (code = 1006) => {
  world.socket.die(code);
  world.pass(4000);
  world.socket.open();
};

test("the hello comes first, and what was sent before its answer comes after it, numbered from one", async () => {
  const { room, seen } = open({ query: { name: "Ann" } });
  assert.equal(world.socket.url, "ws://house/parties/chat/lobby?name=Ann");
  assert.deepEqual(world.socket.protocols, ["innkeeper.v1"]);
  const early = room.send({ text: "a" });
  room.send("b");
  world.socket.open();
  const { secret, ...rest } = world.socket.hello;
  assert.match(secret, /^[0-9a-f]{32}$/);
  assert.deepEqual(rest, { generation: 1, last: null });
  assert.deepEqual(world.socket.messages, []);
  assert.equal(room.state, "connecting");
  world.socket.say({ hello: { conn: "c-1", at: "10-77" } });
  assert.deepEqual(world.socket.messages, ['1 {"text":"a"}', '2 "b"']);
  assert.equal(room.state, "open");
  assert.equal(room.connId, "c-1");
  assert.deepEqual(seen, [["open", { resumed: false, connId: "c-1" }]]);
  assert.equal(await stand(early), "waits");
});

test("every session has a secret of its own", () => {
  open();
  open();
  const [one, two] = world.sockets.map((socket) => socket.open().hello.secret);
  assert.notEqual(one, two);
});

test("outputs come as values with their numbers, bytes without a copy", () => {
  const { of } = live();
  world.socket.say('11 {"a":[1]}', '12 "two words"', binary(2 ** 33 + 5, 0, 255), '9007199254740991 null');
  assert.deepEqual(of("message"), [
    { data: { a: [1] }, seq: 11 },
    { data: "two words", seq: 12 },
    { data: new Uint8Array([0, 255]), seq: 2 ** 33 + 5 },
    { data: null, seq: 9007199254740991 },
  ]);
});

test("a raw room gets and gives strings and bytes as they are", () => {
  const { room, of } = live({ codec: "raw" });
  room.send("!{no control word}");
  room.send(new Uint16Array([0x4241]));
  room.send(new Uint8Array([1, 2]).buffer);
  assert.deepEqual(world.socket.messages, ["1 !{no control word}", "\0\0\0\0\0\0\0\x02AB", "\0\0\0\0\0\0\0\x03\x01\x02"]);
  world.socket.say("11 not json", "12 ");
  assert.deepEqual(of("message"), [{ data: "not json", seq: 11 }, { data: "", seq: 12 }]);
  assert.throws(() => room.send({ a: 1 }), /a raw room takes strings/);
});

test("bytes that change after send are sent as they were", () => {
  const { room } = open();
  const bytes = new Uint8Array([65]);
  room.send(bytes);
  bytes[0] = 66;
  world.socket.open().say({ hello: { conn: "c-1", at: "10-77" } });
  assert.deepEqual(world.socket.messages, ["\0\0\0\0\0\0\0\x01A"]);
});

test("a send is fulfilled once accepted, its .applied once handled, and both count up to a number", async () => {
  const { room } = live();
  const [one, two, three] = ["a", "b", "c"].map((value) => room.send(value));
  world.socket.say({ ack: 2 });
  assert.deepEqual([await stand(one), await stand(two), await stand(three)], [["kept", undefined], ["kept", undefined], "waits"]);
  assert.equal(await stand(one.applied), "waits");
  world.socket.say({ ack: 3, applied: 2 });
  assert.deepEqual([await stand(two.applied), await stand(three), await stand(three.applied)], [["kept", undefined], ["kept", undefined], "waits"]);
  world.socket.say({ applied: 3 });
  assert.deepEqual(await stand(three.applied), ["kept", undefined]);
});

test("a resume names the last output, a higher generation, and sends again only what was not accepted", async () => {
  const { room, seen, of } = live();
  const { secret } = world.socket.hello;
  const sent = ["a", "b", "c"].map((value) => room.send(value));
  world.socket.say({ ack: 1 }, '15 "x"');
  again();
  const offline = room.send("d");
  assert.deepEqual(world.socket.hello, { secret, generation: 2, last: "15-77" });
  assert.deepEqual(world.socket.messages, []);
  world.socket.say({ resumed: { conn: "c-1", at: "15-77", accepted: 2 } });
  assert.deepEqual(world.socket.messages, ['3 "c"', '4 "d"']);
  assert.deepEqual(await stand(sent[1]), ["kept", undefined]);
  assert.equal(await stand(sent[2]), "waits");
  world.socket.say('16 "y"', { ack: 4 });
  assert.deepEqual(await stand(offline), ["kept", undefined]);
  assert.deepEqual(seen.map(([type]) => type), ["open", "message", "down", "open", "message"]);
  assert.deepEqual(of("open")[1], { resumed: true, connId: "c-1" });
});

test("an era counts from the next output on, and an `at` moves the place without one", () => {
  live();
  world.socket.say('11 "x"', { era: "88" });
  again();
  assert.equal(world.socket.hello.last, "11-77");
  world.socket.say({ resumed: { conn: "c-1", at: "11-77", accepted: 0 } }, { era: "88" }, '12 "y"');
  again();
  assert.equal(world.socket.hello.last, "12-88");
  world.socket.say({ resumed: { conn: "c-1", at: "12-88", accepted: 0 } }, { at: "300-99" });
  again();
  assert.equal(world.socket.hello.last, "300-99");
  world.socket.say({ resumed: { conn: "c-1", at: "300-99", accepted: 0 } }, '301 "z"');
  again();
  assert.equal(world.socket.hello.last, "301-99");
});

test("a hello that was never answered is said again as a new session's", () => {
  const { room } = open();
  room.send("a");
  world.socket.open();
  again();
  assert.equal(world.socket.hello.generation, 2);
  assert.equal(world.socket.hello.last, null);
  world.socket.say({ resumed: { conn: "c-1", at: "10-77", accepted: 0 } });
  assert.deepEqual(world.socket.messages, ['1 "a"']);
});

test("a resync says where to go on, and what the room forgot is sent again in order", async () => {
  const { room, of } = live();
  const sent = ["a", "b", "c", "d"].map((value) => room.send(value));
  world.socket.say({ ack: 4, applied: 3 });
  again();
  world.socket.say({ resync: { at: "12-99", accepted: 1 } });
  assert.deepEqual(world.socket.messages, ['2 "b"', '3 "c"', '4 "d"']);
  assert.deepEqual(of("resync"), [{ newSession: false }]);
  assert.equal(await stand(sent[3].applied), "waits");
  world.socket.say({ ack: 4, applied: 4 });
  assert.deepEqual(await stand(sent[3].applied), ["kept", undefined]);
  again();
  assert.equal(world.socket.hello.last, "12-99");
});

test("a resync in the middle of a connection sends again on the same socket", () => {
  const { room, seen } = live();
  room.send("a");
  room.send("b");
  world.socket.say({ ack: 2, applied: 2 }, { resync: { at: "9-5", accepted: 1 } });
  room.send("c");
  assert.deepEqual(world.socket.messages, ['1 "a"', '2 "b"', '2 "b"', '3 "c"']);
  assert.equal(world.sockets.length, 1);
  assert.deepEqual(seen.map(([type]) => type), ["open", "resync"]);
});

test("a room that forgot more than is kept gets a new session: the old one leaves, and all is told", async () => {
  const { room, of } = live();
  const { secret } = world.socket.hello;
  for (let n = 0; n < 400; n += 1) room.send(n);
  world.socket.say({ applied: 400 });
  const waiting = room.send("last");
  const old = world.socket;
  old.say({ resync: { at: "9-5", accepted: 143 } });
  assert.equal(old.closedWith, 1000);
  world.pass(0);
  world.socket.open();
  assert.notEqual(world.socket.hello.secret, secret);
  assert.deepEqual([world.socket.hello.generation, world.socket.hello.last], [1, null]);
  const [state, error] = await stand(waiting);
  assert.deepEqual([state, error.name, error.code, error.applied, error.n], ["broken", "RoomError", "session_over", "unknown", 401]);
  assert.deepEqual(of("resync"), []);
  world.socket.say({ hello: { conn: "c-2", at: "9-6" } });
  assert.deepEqual(of("resync"), [{ newSession: true }]);
  assert.equal(room.connId, "c-2");
});

test("256 applied messages are kept, not longer than 30 s", () => {
  const forget = (waitMs, accepted) => {
    const { room } = live();
    for (let n = 0; n < 300; n += 1) room.send(n);
    world.socket.say({ applied: 299 });
    world.pass(waitMs);
    world.socket.say({ applied: 300 }, { resync: { at: "9-5", accepted } });
    const isOver = world.socket.closedWith === 1000;
    room.close();
    return isOver;
  };
  assert.equal(forget(0, 44), false);
  assert.equal(forget(0, 43), true);
  assert.equal(forget(29_000, 44), false);
  assert.equal(forget(31_000, 298), true);
  assert.equal(forget(31_000, 299), false);
});

test("4410 begins a new session at once: unsent messages are told no, sent ones unknown", async () => {
  const { room, seen, of } = live();
  const { secret } = world.socket.hello;
  const [done, sent] = [room.send("a"), room.send("b")];
  world.socket.say({ ack: 1, applied: 1 });
  again();
  const unsent = room.send("c");
  world.socket.die(4410, "session over");
  world.pass(0);
  world.socket.open();
  assert.notEqual(world.socket.hello.secret, secret);
  world.socket.say({ hello: { conn: "c-2", at: "20-77" } });
  assert.deepEqual(world.socket.messages, []);
  room.send("d");
  assert.deepEqual(world.socket.messages, ['1 "d"']);
  assert.deepEqual([await stand(done), await stand(done.applied)], [["kept", undefined], ["kept", undefined]]);
  assert.deepEqual([(await stand(sent))[1].applied, (await stand(sent.applied))[1].applied], ["unknown", "unknown"]);
  assert.deepEqual([(await stand(unsent))[1].applied, (await stand(unsent))[1].n], ["no", undefined]);
  assert.deepEqual(of("resync"), [{ newSession: true }]);
  assert.deepEqual(seen.slice(-2).map(([type]) => type), ["open", "resync"]);
  assert.deepEqual(of("close"), []);
});

test("4410 again and again waits longer each time", () => {
  const { of } = live();
  for (let n = 0; n < 4; n += 1) {
    world.socket.die(4410);
    world.pass(of("down").at(-1).waitMs);
    world.socket.open();
  }
  assert.deepEqual(of("down").map((event) => event.waitMs), [0, 500, 1000, 2000]);
});

test("a message that failed in the room breaks its .applied and is told once", async () => {
  const { room, of } = live();
  const [one, two] = [room.send("a"), room.send("b")];
  world.socket.say({ ack: 2 }, { error: "handler_failed", n: 1 }, { applied: 2 });
  const [state, error] = await stand(one.applied);
  assert.deepEqual([state, error.code, error.applied, error.n], ["broken", "handler_failed", "no", 1]);
  assert.deepEqual([await stand(one), await stand(two.applied)], [["kept", undefined], ["kept", undefined]]);
  again();
  world.socket.say({ resumed: { conn: "c-1", at: "10-77", accepted: 2 } }, { error: "handler_failed", n: 1 });
  world.socket.say({ error: "room_unavailable" });
  assert.deepEqual(of("error"), [
    { code: "handler_failed", n: 1, detail: {} },
    { code: "room_unavailable", n: undefined, detail: {} },
  ]);
});

test("an error is an output, too: the place moves on with it", () => {
  const { of } = live();
  world.socket.say({ error: "room_unavailable", at: "14-78" });
  again();
  assert.equal(world.socket.hello.last, "14-78");
  assert.deepEqual(of("error"), [{ code: "room_unavailable", n: undefined, detail: {} }]);
});

test("a full room gets a new session each time, with what waits, until it has a place", async () => {
  const { room, of } = open();
  const sent = room.send("a");
  const { secret } = world.socket.open().hello;
  world.socket.die(4503, "room full");
  world.pass(250);
  assert.equal(world.sockets.length, 2);
  assert.notEqual(world.socket.open().hello.secret, secret);
  assert.deepEqual([world.socket.hello.generation, world.socket.hello.last], [1, null]);
  world.socket.say({ hello: { conn: "c-2", at: "9-6", accepted: 0 } });
  assert.deepEqual(world.socket.messages, ['1 "a"']);
  assert.equal(await stand(sent), "waits");
  assert.deepEqual(of("resync"), []);
});

test("out of order is the end, and what the edge refused was not applied", async () => {
  const { room, of } = live();
  const sent = ["a", "b"].map((value) => room.send(value));
  world.socket.say({ error: "out_of_order", expected: 2 });
  world.socket.die(4400, "bad frame");
  assert.deepEqual([(await stand(sent[0]))[1].applied, (await stand(sent[1]))[1].applied], ["unknown", "no"]);
  assert.deepEqual(of("error"), [{ code: "out_of_order", n: undefined, detail: { expected: 2 } }]);
  assert.deepEqual(of("close"), [{ code: 4400, reason: "bad frame", final: true }]);
});

test("a message that was too large was not applied, nor what came after it", async () => {
  for (const [reason, applied] of [["message too big", ["unknown", "no", "no"]], ["said by a proxy", ["unknown", "unknown", "unknown"]]]) {
    const { room } = live();
    const sent = ["acked, and the largest of all", "a", "ééééééé", "longer yet"].map((value) => room.send(value));
    world.socket.say({ ack: 1 });
    world.socket.die(1009, reason);
    assert.deepEqual((await Promise.all(sent.slice(1).map(stand))).map(([, error]) => error.applied), applied);
  }
});

test("every code of the table ends or goes on as it says", () => {
  for (const code of [...Object.keys(FINAL_CODES), 3000, 3999, 4000, 4499].map(Number).filter((code) => code !== 4410)) {
    const { room, of } = live();
    const count = world.sockets.length;
    world.socket.die(code, "why");
    world.pass(60_000);
    assert.equal(room.state, "closed", `${code}`);
    assert.equal(world.sockets.length, count);
    assert.deepEqual(of("close"), [{ code, reason: "why", final: true }]);
    assert.equal(isFinal(code), true);
  }
  for (const code of [...Object.keys(RETRY_CODES), 1001, 1005, 1006, 1011, 4500, 4999].map(Number)) {
    const { room, of } = live();
    const count = world.sockets.length;
    world.socket.die(code, "why");
    assert.equal(room.state, "down", `${code}`);
    world.pass(250);
    assert.equal(world.sockets.length, count + 1);
    assert.deepEqual(of("down"), [{ code, reason: "why", waitMs: 250, attempt: 1 }]);
    assert.equal(isFinal(code), false);
    room.close();
  }
});

test("a server without the subprotocol is never spoken to", () => {
  const { of } = open();
  world.socket.open("");
  assert.deepEqual(world.socket.sent, []);
  assert.equal(world.socket.closedWith, 3001);
  assert.deepEqual(of("close"), [{ code: 1002, reason: "the server does not speak innkeeper.v1", final: true }]);
});

test("a frame that is not innkeeper.v1 is the end, not a silent hole", () => {
  for (const frame of ["no number", " 5", "!{broken", new ArrayBuffer(3), binary(0)]) {
    const { room, of } = live();
    world.socket.say(frame);
    assert.equal(room.state, "closed", `${frame}`);
    assert.match(of("close")[0].reason, /^the server broke innkeeper.v1: /);
  }
  const { room } = open();
  world.socket.open().say('11 "before the answer"');
  assert.equal(room.state, "closed");
});

test("an output that is not JSON is told as an error, and the place moves on", () => {
  const { of } = live();
  world.socket.say("11 {", '12 "x"');
  assert.deepEqual(of("error"), [{ code: "not_json", n: undefined, detail: { seq: 11, payload: "{" } }]);
  again();
  assert.equal(world.socket.hello.last, "12-77");
});

test("an edge that stops is left at a moment of the client's own, and the session goes on elsewhere", () => {
  world.random = 0.5;
  const { room, of } = live();
  const first = world.socket;
  room.send("kept");
  first.say({ "close-soon": 10 });
  world.pass(3400);
  assert.deepEqual([room.state, first.closedWith], ["open", null]);
  world.pass(200);
  assert.equal(first.closedWith, 3001);
  assert.deepEqual(of("down").map(({ code, waitMs }) => [code, waitMs]), [[1012, 0]]);
  world.socket.open().say({ resumed: { conn: "c-1", at: "10-77", accepted: 0 } });
  assert.deepEqual([room.state, world.socket.messages], ["open", ['1 "kept"']]);
  world.pass(10000);
  assert.equal(world.sockets.length, 2);
});

test("an edge that is gone before the moment comes is not left twice", () => {
  world.random = 0.9;
  const { room } = live();
  world.socket.say({ "close-soon": 10 });
  again(1012);
  world.socket.say({ resumed: { conn: "c-1", at: "10-77", accepted: 0, beat: 20 } });
  world.pass(10000);
  assert.deepEqual([room.state, world.sockets.length], ["open", 2]);
  world.socket.say({ "close-soon": 10 });
  room.close();
  assert.equal(world.timerCount, 0);
});

test("words and fields of later versions are ignored", () => {
  const { room } = live();
  world.socket.say({ later: 5 }, { ack: 0, later: true });
  assert.equal(room.state, "open");
});
