// The types of the package: what applications may rely on. Says nothing that src does not do; `npm run types` holds
// the two together.

/** One live stream, as the service answers it. */
export interface Stream {
  streamId: string;
  userName: string;
  deviceId?: string;
  deviceName?: string;
  contentId?: string;
  startedAt: string;
  expiresAt: string;
  expiresInSeconds: number;
  heartbeatIntervalSeconds: number;
}

/**
 * - `idle`: nothing plays.
 * - `starting`: asked for a slot, not answered yet. Play.
 * - `live`: has a slot. Play.
 * - `unavailable`: nobody answers; tried again and again. Play.
 * - `failed`: the service refused the start for another reason than the limit (see `error`). Play.
 * - `denied`: the limit is reached. Do not play.
 * - `ended`: somebody took the slot, or it ran out under `onUnavailable: "stop"`. Do not play.
 */
export type State = "idle" | "starting" | "live" | "unavailable" | "failed" | "denied" | "ended";

export interface Denial {
  limit: number | undefined;
  count: number | undefined;
  /** What plays now, oldest first. */
  streams: Stream[];
  slotFreesInSeconds: number | undefined;
  /** Ends another stream; its player stops at its next heartbeat. False when that did not succeed. */
  stopOther(streamId: string): Promise<boolean>;
  /** Asks again, as at `start()`. */
  retry(): Promise<State>;
}

export interface Lease {
  streamId: string;
  stream: Stream;
}

export interface Problem {
  status: number | undefined;
  /** The service's code (docs/errors.md), `http-<status>`, `timeout`, `no-answer` or `malformed-answer`. */
  code: string;
  detail: string | undefined;
}

export interface Events {
  started: Lease;
  renewed: Lease;
  /** The slot had run out, and another was taken. Nothing to do. */
  restarted: Lease & { previousStreamId: string | null; reason: string };
  denied: Denial;
  ended: {
    reason: "evicted" | "replaced" | "unavailable" | (string & {});
    /** The start that did it, if one did. */
    endedBy: { streamId: string; deviceName?: string } | undefined;
  };
  unavailable: Problem & { leaseEndsInSeconds: number };
  available: {};
  /** A bug in the application or its settings. Playback goes on. */
  error: { status?: number; code: string; detail?: string; requestId?: string };
  state: { state: State; previous: State };
}

export type Event<T extends keyof Events> = Events[T] & { type: T };
export type Listener<T extends keyof Events> = (event: Event<T>) => unknown;

export interface Emitter {
  /** Returns a function that takes the listener away again. */
  on<T extends keyof Events>(type: T, listener: Listener<T>): () => void;
  off<T extends keyof Events>(type: T, listener: Listener<T>): void;
}

export interface SessionOptions {
  /** Where the service is, without `/v1`: `"https://streams.example.com"`, or `""` for the page's own origin. */
  baseUrl: string;
  userName: string;
  /** A function is asked once, and again when the service refused its token, which is then `rejected`. */
  token?: string | ((about: { rejected: string | undefined }) => string | undefined | Promise<string | undefined>);
  /** Default: one a tab, kept over reloads; without a page, one a process. */
  deviceId?: string;
  deviceName?: string;
  contentId?: string | (() => string | undefined);
  atLimit?: "reject" | "evictOldest";
  /** What happens when the lease ran out and nobody answers. Default `"continue"`. */
  onUnavailable?: "continue" | "stop";
  /** How long a start that nobody answers may play under `onUnavailable: "stop"`. Default 90. */
  unansweredStartS?: number;
  /** Default 10. */
  requestTimeoutS?: number;
  fetch?: (url: string, init: any) => Promise<any>;
  sendBeacon?: (url: string) => boolean;
  /** `now` is monotonic, `wall` is not; both in milliseconds. */
  clock?: { now?: () => number; wall?: () => number };
  timers?: { setTimeout(call: () => void, delayMs: number): any; clearTimeout(timer: any): void };
  /** From 0 up to 1. */
  random?: () => number;
  /** Where to listen for sleep, network and unload; `null` for nowhere. Default: this page, if there is one. */
  page?: { window: any; document: any } | null;
}

export interface AttachOptions extends SessionOptions {
  /** Default 300. Until then a paused player keeps its slot. */
  stopAfterPauseS?: number;
}

export interface Session extends Emitter {
  /** Resolves, never rejects, with the state after the first answer (or its absence). Called again while it runs: the same. */
  start(): Promise<State>;
  /**
   * Resolves when the slot is free, or was given up on. `unload`: the page goes away, send it now and do
   * not wait; `attach` does so by itself, others call it in `pagehide`. `forGood`: every later start is `idle` and
   * sends nothing; so `detach` stops.
   */
  stop(options?: { unload?: boolean; forGood?: boolean }): Promise<void>;
  /** Asks again after `denied`, `ended` or `failed`; while nobody answers, asks now. */
  retry(): Promise<State>;
  /** The device may have slept or been cut off: heartbeat now if there is any doubt. Browsers need not call it. */
  wake(): void;
  /** As in `denied`. */
  stopOther(streamId: string): Promise<boolean>;
  readonly state: State;
  readonly streamId: string | null;
  readonly deviceId: string | null;
  readonly leaseEndsInSeconds: number;
}

/** What is needed of an HTMLMediaElement. */
export interface MediaElement {
  readonly paused: boolean;
  readonly ended: boolean;
  play(): Promise<void> | void;
  pause(): void;
  addEventListener(type: string, listener: (event: any) => void): void;
  removeEventListener(type: string, listener: (event: any) => void): void;
}

export interface Attached extends Emitter {
  readonly session: Session;
  /** Lets go of the element and frees the slot. The session starts no more. */
  detach(): Promise<void>;
}

export function createSession(options: SessionOptions): Session;
export function attach(video: MediaElement, options: AttachOptions): Attached;
