// A page that plays media with grants. The query has `api`, `user`, `media` (URL of the media server), `send`, and `deaf` for a player
// that ignores the service. The build replaces "library" by one of the files in this folder.

import * as library from "library";
import { attach, createSession, mediaGrants } from "@stream-manager/player";

const query = new URLSearchParams(location.search);
const video = document.querySelector("video");
const options = { baseUrl: query.get("api"), userName: query.get("user"), deviceId: "page" };
let content = "first";

// The last time at which the picture moved.
let position = 0;
let movedMs = 0;
setInterval(() => {
  if (video.currentTime !== position) movedMs = Date.now();
  position = video.currentTime;
}, 50);

function playPolitely() {
  const player = attach(video, { ...options, contentId: () => content });
  const send = query.get("send") ?? "query";
  const origins = [query.get("media"), location.origin];
  const grants = mediaGrants(player.session, { origins, send, cookie: { domain: "example.com", path: "/media/" } });
  const play = (next) => {
    content = next;
    return library.play(video, `${query.get("media")}/media/${content}`, grants, player.session);
  };
  return { session: player.session, play };
}

// Takes a slot and uses each grant as long as it can, but ignores denials and evictions.
function playDeaf() {
  const session = createSession({ ...options, contentId: () => content });
  let latest;
  session.on("grant", ({ grant }) => (latest = grant));
  const addGrant = (xhr, url) => xhr.open("GET", `${url.split("?")[0]}?grant=${latest}`, true);
  const play = async () => {
    await session.start();
    return library.playDeaf(video, `${query.get("media")}/media/${content}`, addGrant);
  };
  return { session, play };
}

window.watched = {
  ...(query.has("deaf") ? playDeaf() : playPolitely()),
  video,
  state: () => ({ time: video.currentTime, movedMs, paused: video.paused, grant: window.watched.session.grant }),
};
