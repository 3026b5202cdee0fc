// A member that does what the lines on its input say, and tells on its output what it sees, both as JSON.
// Usage: node client_bot.js URL CODEC [ws]: with ws on the package's WebSocket, else on Node's own.
import { createInterface } from "node:readline";

import { connect } from "../../clients/js/innkeeper.js";

const [url, codec, library] = process.argv.slice(2);
const options = library === "ws" ? { WebSocket: (await import("ws")).WebSocket } : {};
const tell = (fields) => process.stdout.write(`${JSON.stringify(fields)}\n`);
const room = connect(url, { ...options, codec, backoff: { firstMs: 50, mostMs: 500 } });
for (const type of ["open", "message", "resync", "moved", "down", "error", "close"]) {
  room.addEventListener(type, ({ isTrusted, ...event }) => {
    if (event.data instanceof Uint8Array) event.data = { hex: Buffer.from(event.data).toString("hex") };
    tell({ type, ...event });
  });
}
for await (const line of createInterface({ input: process.stdin })) {
  const { act, id, value } = JSON.parse(line);
  if (act === "send") {
    const sent = room.send(value?.hex === undefined ? value : Buffer.from(value.hex, "hex"));
    sent.then(() => tell({ type: "accepted", id }), (error) => tell({ type: "lost", id, applied: error.applied }));
    sent.applied.then(() => tell({ type: "applied", id }), (error) => tell({ type: "failed", id, code: error.code }));
  } else room[act]();
}
room.close();
