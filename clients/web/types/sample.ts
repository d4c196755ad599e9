// An application's use of every part of the API: compiles as long as the declared types hold. Never run.

import { attach, createSession, type Event, type Session, type State } from "../src/player.js";

const video: HTMLVideoElement = document.createElement("video");
const attached = attach(video, {
  baseUrl: "https://streams.example.com",
  userName: "ann",
  token: async ({ rejected }) => (rejected === undefined ? "kept" : "fresh"),
  deviceName: "Firefox on the laptop",
  contentId: () => video.dataset.content,
  atLimit: "reject",
  onUnavailable: "stop",
  stopAfterPauseS: 60,
});

const away: () => void = attached.on("denied", async ({ limit, count, streams, slotFreesInSeconds, stopOther, retry }) => {
  const known: (number | undefined)[] = [limit, count, slotFreesInSeconds];
  const [oldest] = streams;
  if (oldest && known.length > 0 && (await stopOther(oldest.streamId))) {
    const state: State = await retry();
    console.log(state, oldest.deviceName?.toUpperCase());
  }
});
away();
attached.on("ended", ({ reason, endedBy }) => console.log(reason, endedBy?.deviceName));
attached.on("unavailable", ({ code, status, leaseEndsInSeconds }) => console.log(code, status, leaseEndsInSeconds.toFixed()));
attached.on("restarted", ({ streamId, previousStreamId }) => console.log(streamId, previousStreamId));
attached.on("error", ({ status, code, requestId }) => console.error(status, code, requestId));
const heard = ({ type, state, previous }: Event<"state">): void => console.log(type satisfies "state", state, previous);
attached.on("state", heard);
attached.off("state", heard);

const session: Session = createSession({
  baseUrl: "",
  userName: "ann",
  token: "t",
  deviceId: "tv-42",
  page: null,
  fetch,
  clock: { now: () => performance.now() },
  timers: { setTimeout: (call, delayMs) => setTimeout(call, delayMs), clearTimeout: (timer) => clearTimeout(timer) },
  random: Math.random,
});
if ((await session.start()) !== "denied") session.wake();
await session.stop({ unload: true });

// @ts-expect-error: there is no such event
session.on("finished", () => {});
// @ts-expect-error: the user has to be named
createSession({ baseUrl: "" });
// @ts-expect-error: not a policy
createSession({ baseUrl: "", userName: "ann", onUnavailable: "pause" });
