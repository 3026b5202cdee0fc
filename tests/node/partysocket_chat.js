// Joins a room with PartySocket, says what it is told to, prints every frame as a line, ends when it has seen "done".
// Usage: node partysocket_chat.js HOST KIND ROOM NAME MESSAGE...
import { PartySocket } from "partysocket";
import WebSocket from "ws";

const [host, party, room, name, ...messages] = process.argv.slice(2);
const socket = new PartySocket({ host, party, room, query: { name }, WebSocket });
socket.binaryType = "arraybuffer";
socket.addEventListener("open", () => {
  for (const message of messages) socket.send(message);
  socket.send(new Uint8Array([0, 255, 7]));
});
socket.addEventListener("message", (event) => {
  const text = typeof event.data === "string" ? event.data : `bytes ${Buffer.from(event.data).toString("hex")}`;
  console.log(text);
  if (text === "done") {
    socket.close();
    setTimeout(() => process.exit(0), 50);
  }
});
setTimeout(() => process.exit(1), 15000);
