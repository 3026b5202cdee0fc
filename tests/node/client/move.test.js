// How a client goes from room to room, with the test as the edge and the clock.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { connect } from "../../../clients/js/innkeeper.js";
import { World, events, stand } from "./fake.js";

let world;

beforeEach(() => { world = new World(); });
afterEach(() => world.restore());

const live = (options = {}) => {
  const room = connect("ws://house/parties/chat/lobby", { WebSocket: world.WebSocket, ...options });
  const seen = events(room);
  world.socket.open().say({ hello: { conn: "c-1", at: "10-77" } });
  return { room, of: (type) => seen.filter((event) => event[0] === type).map((event) => event[1]) };
};

test("a move takes along what was not accepted, to the new address from then on", async () => {
  const { room, of } = live({ query: { name: "Ann" } });
  const [applied, accepted, lost, onItsWay] = ["a", "b", "c", "d"].map((value) => room.send(value));
  world.socket.say({ ack: 2, applied: 1 });
  const { secret } = world.socket.hello;
  world.socket.sent.length = 0;
  world.socket.say({ moved: { room: "match/a:7~", accepted: 3 } });
  assert.equal(world.sockets.length, 1);
  const { hello } = world.socket;
  assert.notEqual(hello.secret, secret);
  assert.deepEqual([hello.generation, hello.last, room.state], [1, null, "connecting"]);
  assert.deepEqual(of("moved"), [{ room: "match/a:7~" }]);
  assert.equal(room.url, "ws://house/parties/match/a:7~?name=Ann");
  const late = room.send("e");
  assert.deepEqual(world.socket.messages, []);
  world.socket.say({ hello: { conn: "c-2", at: "4-5", accepted: 0 } });
  assert.deepEqual(world.socket.messages, ['1 "d"', '2 "e"']);
  assert.deepEqual(of("open").at(-1), { resumed: false, connId: "c-2" });
  assert.deepEqual(of("resync"), []);
  for (const sent of [applied, accepted, lost]) assert.equal((await stand(sent))[0], "kept");
  assert.equal((await stand(applied.applied))[0], "kept");
  for (const sent of [accepted, lost]) {
    const [, error] = await stand(sent.applied);
    assert.deepEqual([error.code, error.applied], ["moved", "unknown"]);
  }
  assert.equal(await stand(onItsWay), "waits");
  world.socket.say({ ack: 2, applied: 2 });
  for (const sent of [onItsWay, late]) assert.equal((await stand(sent.applied))[0], "kept");
  world.socket.die();
  world.pass(250);
  assert.equal(world.socket.url, room.url);
  assert.equal(world.socket.open().hello.last, "4-5");
});

test("a move may answer a hello; without an answer to its own the new address is asked", () => {
  const { room, of } = live();
  room.send("a");
  world.socket.die();
  world.pass(250);
  world.socket.open().say({ moved: { room: "match/7", accepted: 0 } });
  world.pass(15000);
  assert.equal(of("down").at(-1).reason, "no answer");
  world.pass(500);
  assert.equal(world.socket.url, "ws://house/parties/match/7");
  assert.deepEqual([world.socket.open().hello.generation, world.socket.hello.last], [2, null]);
  world.socket.say({ hello: { conn: "c-2", at: "4-5", accepted: 0 } });
  assert.deepEqual(world.socket.messages, ['1 "a"']);
  assert.equal(room.connId, "c-2");
});

test("what was accepted once stays where it was, also where that room was rolled back since", async () => {
  const { room } = live();
  const kept = room.send("a");
  room.send("b");
  world.socket.say({ ack: 1 });
  world.socket.die();
  world.pass(250);
  world.socket.open().say({ moved: { room: "match/7", accepted: 0 } }, { hello: { conn: "c-2", at: "4-5" } });
  assert.equal(world.socket.messages.at(-1), '1 "b"');
  assert.equal((await stand(kept))[0], "kept");
});
