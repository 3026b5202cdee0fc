// How a client says whose it is, with the test as the edge and the clock.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { connect } from "../../../clients/js/innkeeper.js";
import { World, events } from "./fake.js";

let world;

beforeEach(() => { world = new World(); });
afterEach(() => world.restore());

const enter = (options) => {
  const room = connect("ws://house/parties/chat/lobby", { WebSocket: world.WebSocket, ...options });
  const seen = events(room);
  return { room, of: (type) => seen.filter((event) => event[0] === type).map((event) => event[1]) };
};
const settle = async () => { for (let i = 0; i < 10; i += 1) await null; };
const tokens = () => {
  const asked = [];
  return { asked, token: async () => { asked.push(`t${asked.length + 1}`); return asked.at(-1); } };
};
const offered = () => world.socket.protocols;

test("a text is offered with every socket, beside the subprotocol", () => {
  enter({ token: "abc", protocols: ["x"] });
  assert.deepEqual(offered(), ["innkeeper.v1", "bearer.abc", "x"]);
  world.socket.open().say({ hello: { conn: "c-1", at: "10-77" } });
  world.socket.die();
  world.pass(250);
  assert.equal(world.sockets.length, 2);
  assert.deepEqual(offered(), ["innkeeper.v1", "bearer.abc", "x"]);
});

test("a function is asked for every socket, and before the token expires", async () => {
  const { asked, token } = tokens();
  enter({ token });
  await settle();
  assert.deepEqual(offered(), ["innkeeper.v1", "bearer.t1"]);
  world.socket.open().say({ hello: { conn: "c-1", at: "10-77", expires: 100 } });
  world.pass(79_000);
  assert.deepEqual(asked, ["t1"]);
  world.socket.say({ at: "10-77" });
  world.pass(1_500);
  await settle();
  assert.deepEqual(world.socket.sent.at(-1), '!{"token":"t2"}');
  world.socket.say({ expires: 10 });
  world.pass(8_000);
  await settle();
  assert.deepEqual(world.socket.sent.at(-1), '!{"token":"t3"}');
  world.socket.die();
  world.pass(250);
  await settle();
  assert.deepEqual(offered(), ["innkeeper.v1", "bearer.t4"]);
});

test("a socket that ended for its token's age is final for a text, and opened anew for a function", async () => {
  const fixed = enter({ token: "abc" });
  world.socket.open().say({ hello: { conn: "c-1", at: "10-77" } });
  world.socket.die(4401, "token expired");
  assert.equal(fixed.room.state, "closed");
  const { token } = tokens();
  const living = enter({ token });
  await settle();
  world.socket.open().say({ hello: { conn: "c-1", at: "10-77" } });
  world.socket.die(4401, "token expired");
  assert.equal(living.room.state, "down");
  world.pass(250);
  await settle();
  assert.deepEqual(offered(), ["innkeeper.v1", "bearer.t2"]);
});

test("a function that fails, hangs or gives nonsense is asked again later", async () => {
  const answers = [() => { throw new Error("logged out"); }, () => new Promise(() => {}), () => 7, () => "good"];
  let n = 0;
  const { room, of } = enter({ token: () => answers[n++](), backoff: { firstMs: 100, factor: 1 } });
  await settle();
  assert.equal(of("down")[0].reason, "no token: logged out");
  world.pass(100);
  await settle();
  world.pass(15_000);
  assert.equal(of("down")[1].reason, "no answer");
  world.pass(100);
  await settle();
  assert.equal(of("down")[2].reason, "no token: options.token() gave no text");
  assert.equal(world.sockets.length, 0);
  world.pass(100);
  await settle();
  assert.deepEqual(offered(), ["innkeeper.v1", "bearer.good"]);
  room.close();
  assert.equal(world.timerCount, 0);
});

test("who has left does not connect when the token comes at last", async () => {
  let give;
  const { room } = enter({ token: () => new Promise((done) => { give = done; }) });
  room.close();
  give("late");
  await settle();
  assert.equal(world.sockets.length, 0);
  assert.throws(() => enter({ token: 7 }), /token is text/);
});
