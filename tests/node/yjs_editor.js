// A Yjs client of y-websocket, unmodified. Commands come as lines: "insert TEXT" (at the end), "show"; it prints the text.
import * as readline from 'node:readline'
import { WebsocketProvider } from 'y-websocket'
import * as Y from 'yjs'
import WebSocket from 'ws'

const [server, room] = process.argv.slice(2)
const doc = new Y.Doc()
const text = doc.getText('text')
const provider = new WebsocketProvider(server, room, doc, { WebSocketPolyfill: WebSocket, disableBc: true })
provider.awareness.setLocalStateField('user', { name: `editor ${process.pid}` })
provider.on('sync', (isSynced) => { if (isSynced) console.log('synced') })

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [verb, ...rest] = line.split(' ')
  if (verb === 'insert') text.insert(text.length, rest.join(' '))
  if (verb === 'show') console.log(JSON.stringify({ text: text.toString(), users: provider.awareness.getStates().size }))
}
provider.destroy()
process.exit(0)
