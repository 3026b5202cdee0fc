// Types of innkeeper.js. What each thing does is told in docs/clients.md.

/** Close codes after which the client stays away (after 4410 it begins a new session), and their reasons. */
export const FINAL_CODES: Readonly<Record<number, string>>;
/** Close codes after which the client comes back by itself, and their reasons. */
export const RETRY_CODES: Readonly<Record<number, string>>;
/** Whether a close code is final: by the tables, else 3000-4499. */
export function isFinal(code: number): boolean;

/** What a raw room takes. A json room takes these too, as binary messages. */
export type Bytes = ArrayBuffer | ArrayBufferView;

/** The part of the WebSocket interface that the client uses: the browser's, Node's (22 and later) or the package ws. */
export interface WebSocketLike {
  binaryType: any;
  readonly protocol: string;
  onopen: any;
  onmessage: any;
  onclose: any;
  onerror: any;
  send(data: any): void;
  close(code?: number): void;
}

export interface Backoff {
  /** The first wait, in milliseconds: 250. */
  firstMs?: number;
  /** How much longer the next wait is: 2. */
  factor?: number;
  /** The longest wait, in milliseconds: 15,000. */
  mostMs?: number;
  /** How much of a wait is left to chance, 0 to 1: 0.5. */
  jitter?: number;
}

export interface Options<Codec extends "json" | "raw" = "json" | "raw"> {
  /** The room's codec, "json" unless given. */
  codec?: Codec;
  /** Added to the URL's query. */
  query?: Record<string, string | number | boolean>;
  /**
   * Says whose it is, to edges with authentication: text, or a function that returns one or a promise of it. The function
   * is called for every connection, and again before the token of the moment expires.
   */
  token?: string | (() => string | Promise<string>);
  /** More subprotocols to offer, for proxies and gateways that read them. */
  protocols?: string[];
  /** The class to use where there is no global WebSocket. */
  WebSocket?: new (url: string, protocols: string[]) => WebSocketLike;
  /** A key of sessionStorage under which the session outlives a reload of the page. Off by default. */
  storage?: string;
  backoff?: Backoff;
}

/** Why a message was not accepted, or not applied. */
export class RoomError extends Error {
  readonly name: "RoomError";
  /** "closed", "session_over", "moved" (of `applied`), or the room's word: "handler_failed", "handler_timeout", "invalid_json" ... */
  readonly code: string;
  /** Whether the room may have applied it: "no" is certain, "unknown" is not. */
  readonly applied: "no" | "unknown";
  /** The message's number in its session, if it ever got one. */
  readonly n: number | undefined;
}

/** Fulfilled once the message is accepted: then the room applies it exactly once, whatever dies. */
export interface Sent extends Promise<void> {
  /** Fulfilled once the room has handled it and committed what came of it. */
  readonly applied: Promise<void>;
}

/** Connected. `resumed` is false for a session's first time. */
export interface OpenEvent extends Event {
  readonly resumed: boolean;
  readonly connId: string;
}
/** An output of the room: a JSON value, a string of a raw room, or bytes. `seq` grows, with gaps. */
export interface RoomMessageEvent<Value> extends Event {
  readonly data: Value;
  readonly seq: number;
}
/** Outputs were missed: what comes next is the room's snapshot (on_resync; with `newSession`, on_connect). */
export interface ResyncEvent extends Event {
  readonly newSession: boolean;
}
/** The room has taken this client to another one (`kind/name`): what follows is of that, beginning with its on_connect. */
export interface MovedEvent extends Event {
  readonly room: string;
}
/** The connection is gone; the next attempt follows in `waitMs`. */
export interface DownEvent extends Event {
  readonly code: number;
  readonly reason: string;
  readonly waitMs: number;
  readonly attempt: number;
}
/** The room could not do something: of one message (`n`), or at all. */
export interface RoomErrorEvent extends Event {
  readonly code: string;
  readonly n: number | undefined;
  readonly detail: Record<string, unknown>;
}
/** The end: this room does not come back by itself. */
export interface RoomCloseEvent extends Event {
  readonly code: number;
  readonly reason: string;
  readonly final: true;
}

export interface RoomEvents<Value> {
  open: OpenEvent;
  message: RoomMessageEvent<Value>;
  resync: ResyncEvent;
  moved: MovedEvent;
  down: DownEvent;
  error: RoomErrorEvent;
  close: RoomCloseEvent;
}

/** What may be sent, and what comes, by codec. */
export type Outgoing<Codec> = Codec extends "raw" ? string | Bytes : unknown;
export type Incoming<Codec> = Codec extends "raw" ? string | Uint8Array : any;

export class Room<Codec extends "json" | "raw" = "json"> extends EventTarget {
  constructor(url: string, options?: Options<Codec>);
  /** Where it connects: the room it began in, or was moved to. */
  readonly url: string;
  readonly state: "connecting" | "open" | "down" | "closed";
  /** This connection's public id in the room (`conn.id`); "" before the first `open`. */
  readonly connId: string;
  /** Send a value, now or as soon as there is a connection. Throws TypeError for a value that the codec cannot hold. */
  send(value: Outgoing<Codec>): Sent;
  /** Leave the room for good. What is not acknowledged is broken; await it first if that matters. */
  close(): void;
  /** Give the socket up and resume at once on another. */
  reconnect(): void;
  addEventListener<Type extends keyof RoomEvents<Incoming<Codec>>>(
    type: Type,
    listener: (event: RoomEvents<Incoming<Codec>>[Type]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<Type extends keyof RoomEvents<Incoming<Codec>>>(
    type: Type,
    listener: (event: RoomEvents<Incoming<Codec>>[Type]) => void,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

/** Connect to a room: `wss://host/parties/kind/name`, or "/parties/kind/name" of the page's own host. */
export function connect<Codec extends "json" | "raw" = "json">(url: string, options?: Options<Codec>): Room<Codec>;
