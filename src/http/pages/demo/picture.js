// What the devices show: a small landscape that is drawn into a canvas, so that the page needs no media file. Draws only
// while it plays and somebody looks.

const WIDTH = 320;
const HEIGHT = 240;
const FRAMES_PER_SECOND = 10;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** `hue` tells the devices apart. The stream is for a video's `srcObject`. */
export function createPicture(hue) {
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
    // With reduced motion only the clock goes on.
    const t = calm.matches ? 0 : seconds;
    context.fillStyle = sky;
    context.fillRect(0, 0, WIDTH, HEIGHT);
    context.fillStyle = "hsl(45 90% 88%)";
    context.beginPath();
    context.arc(WIDTH * (0.68 + 0.08 * Math.sin(t / 9)), 84 - 10 * Math.cos(t / 9), 24, 0, 2 * Math.PI);
    context.fill();
    hills.forEach((color, depth) => drawHill(color, depth, t));
    context.fillStyle = "rgb(255 255 255 / 0.85)";
    context.font = "600 15px system-ui, sans-serif";
    // Above what a wider screen cuts off.
    context.fillText(clock(), 14, 214);
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

  function clock() {
    const whole = Math.floor(seconds);
    return `${String(Math.floor(whole / 60)).padStart(2, "0")}:${String(whole % 60).padStart(2, "0")}`;
  }

  function frame() {
    seconds += 1 / rate();
    if (!document.hidden) draw();
  }

  const rate = () => (calm.matches ? 1 : FRAMES_PER_SECOND);

  function play() {
    pause();
    // A first frame at once: a video does not start without one.
    draw();
    timer = setInterval(frame, 1000 / rate());
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
