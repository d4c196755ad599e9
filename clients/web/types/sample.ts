// Uses every part of the public API. This file is compiled, but never run. A compile error shows a breaking type change.

import { attach, createSession, mediaGrants, type Event, type Session, type State } from "../src/player.js";

const video: HTMLVideoElement = document.createElement("video");
const attached = attach(video, {
  baseUrl: "https://streams.example.com",
  userName: "ann",
  token: async ({ rejected }) => (rejected === undefined ? "cached" : "fresh"),
  deviceName: () => "Firefox on the laptop",
  contentId: () => video.dataset.content,
  labels: () => ({ quality: video.videoHeight > 1080 ? "uhd" : "hd" }),
  replaces: () => undefined,
  atLimit: "reject",
  onUnavailable: "stop",
  onRefused: "continue",
  stopAfterPauseS: 60,
});

const removeListener: () => void = attached.on("denied", async ({ limit, count, streams, slotFreesInSeconds, stopOther, retry }) => {
  const numbers: (number | undefined)[] = [limit, count, slotFreesInSeconds];
  const [oldest] = streams;
  if (oldest && numbers.length > 0 && (await stopOther(oldest.streamId))) {
    const state: State = await retry({ replaces: [oldest.streamId] });
    console.log(state, oldest.deviceName?.toUpperCase());
  }
});
removeListener();
attached.on("ended", ({ reason, endedBy, code }) => console.log(reason, endedBy?.deviceName, endedBy?.message, code));
attached.on("unavailable", ({ code, status, leaseEndsInSeconds }) => console.log(code, status, leaseEndsInSeconds.toFixed()));
attached.on("restarted", ({ streamId, previousStreamId }) => console.log(streamId, previousStreamId));
attached.on("error", ({ status, code, requestId }) => console.error(status, code, requestId));
attached.on("relabeled", ({ streamId, previousStreamId, labels }) => console.log(streamId, previousStreamId, labels?.quality));
attached.on("labelsDenied", ({ rule, labels, currentLabels, retry }) => (console.log(rule, labels, currentLabels?.quality), retry()));
attached.on("started", ({ stream }) => console.log(stream.overLimit === true));
attached.on("grant", ({ grant, streamId, expiresInSeconds }) => console.log(grant, streamId, expiresInSeconds.toFixed()));
const onState = ({ type, state, previous }: Event<"state">): void => console.log(type satisfies "state", state, previous);
attached.on("state", onState);
attached.off("state", onState);

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
if ((await session.start({ replaces: ["another stream"] })) !== "denied") session.wake();
session.update();
const grants = mediaGrants(session, { origins: ["https://media.example.com"], send: "header", license: "cookie", cookie: { domain: "example.com" } });
const xhrSetup: (xhr: XMLHttpRequest, url: string) => Promise<void> = grants.hls;
const { url, headers, credentials } = await grants.request("https://media.example.com/movie/master.m3u8", "query");
console.log(xhrSetup, url, headers.Authorization, credentials, (await session.freshGrant())?.length, session.grant?.length);
await session.stop({ unload: true });

// @ts-expect-error: unknown event
session.on("finished", () => {});
// @ts-expect-error: userName is required
createSession({ baseUrl: "" });
// @ts-expect-error: origins are required
mediaGrants(session, { send: "query" });
// @ts-expect-error: unknown policy
createSession({ baseUrl: "", userName: "ann", onUnavailable: "pause" });
