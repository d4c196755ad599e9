// Plays in an old browser and posts the result to /report. Uses the syntax of Chromium 56, because the tests do not transpile it.
// `attach` is the function under test.

function run(attach) {
  var video = document.querySelector("video");
  var query = new URLSearchParams(location.search);
  var content = "first";
  var events = [];
  var player = attach(video, {
    baseUrl: "",
    userName: query.get("user"),
    deviceName: function () {
      return "Television";
    },
    contentId: function () {
      return content;
    },
  });
  ["started", "renewed", "restarted", "denied", "ended", "unavailable", "error", "state"].forEach(function (type) {
    player.on(type, function (event) {
      events.push(type === "state" ? event.state : type);
      if (type === "error" || type === "unavailable") events.push(event.code + " " + event.detail);
      if (type === "started") setTimeout(change, 1500);
      if (type === "renewed" && content === "second") report();
    });
  });
  video.muted = true;
  video.loop = true;
  video.src = "silence.wav";
  var played = video.play();
  if (played) played.catch(report);
  setTimeout(report, 60000);

  function change() {
    content = "second";
    video.src = "silence.wav?second";
    video.play();
  }

  function report(error) {
    var request = new XMLHttpRequest();
    request.open("POST", "report" + location.search);
    request.onload = function () {
      // Leaving the page must free the slot.
      location = "elsewhere";
    };
    request.send(
      JSON.stringify({
        userAgent: navigator.userAgent,
        events: events,
        deviceId: player.session.deviceId,
        playing: !video.paused,
        error: error && String(error),
      })
    );
    report = function () {};
  }
}

window.onerror = function (message) {
  var request = new XMLHttpRequest();
  request.open("POST", "report" + location.search);
  request.send(JSON.stringify({ userAgent: navigator.userAgent, error: message, events: [] }));
};
