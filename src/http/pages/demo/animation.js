// The video of a device: an animated landscape on a canvas, so that the page needs no media file. Frames are drawn only while
// the video plays and the page is visible.

const WIDTH = 320;
const HEIGHT = 240;
const FRAMES_PER_SECOND = 10;
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

/** Each device has its own `hue`. The returned `stream` is for `video.srcObject`. */
export function createAnimation(hue) {
  const canvas = document.createElement("canvas");
  canvas.width = WIDTH;
  canvas.height = HEIGHT;
  const context = canvas.getContext("2d", { alpha: false });
  const stream = canvas.captureStream(FRAMES_PER_SECOND);
  const sky = context.createLinearGradient(0, 0, 0, HEIGHT);
  sky.addColorStop(0, `hsl(${hue} 45% 34%)`);
  sky.addColorStop(0.75, `hsl(${hue + 40} 60% 72%)`);
  const hills = [0, 1, 2].map((depth) => `hsl(${hue + 12 * depth} ${26 + 6 * depth}% ${46 - 13 * depth}%)`);
  let seconds = 0;
  let timer;

  function draw() {
    // With reduced motion, only the time display changes.
    const t = reducedMotion.matches ? 0 : seconds;
    context.fillStyle = sky;
    context.fillRect(0, 0, WIDTH, HEIGHT);
    context.fillStyle = "hsl(45 90% 88%)";
    context.beginPath();
    context.arc(WIDTH * (0.68 + 0.08 * Math.sin(t / 9)), 84 - 10 * Math.cos(t / 9), 24, 0, 2 * Math.PI);
    context.fill();
    hills.forEach((color, depth) => drawHill(color, depth, t));
    context.fillStyle = "rgb(255 255 255 / 0.85)";
    context.font = "600 15px system-ui, sans-serif";
    // High enough that a wider aspect ratio does not crop the text.
    context.fillText(formatTime(), 14, 214);
  }

  function drawHill(color, depth, t) {
    context.fillStyle = color;
    context.beginPath();
    context.moveTo(0, HEIGHT);
    for (let x = 0; x <= WIDTH; x += 8) {
      const along = (x + t * 9 * (depth + 1)) / (74 - 12 * depth);
      context.lineTo(x, 138 + 30 * depth + 15 * Math.sin(along) + 7 * Math.sin(2.3 * along + depth));
    }
    context.lineTo(WIDTH, HEIGHT);
    context.fill();
  }

  function formatTime() {
    const whole = Math.floor(seconds);
    return `${String(Math.floor(whole / 60)).padStart(2, "0")}:${String(whole % 60).padStart(2, "0")}`;
  }

  function drawFrame() {
    seconds += 1 / frameRate();
    if (!document.hidden) draw();
  }

  const frameRate = () => (reducedMotion.matches ? 1 : FRAMES_PER_SECOND);

  function play() {
    pause();
    // A video does not start without a first frame.
    draw();
    timer = setInterval(drawFrame, 1000 / frameRate());
  }

  function pause() {
    clearInterval(timer);
  }

  function rewind() {
    pause();
    seconds = 0;
  }

  return { stream, play, pause, rewind };
}
