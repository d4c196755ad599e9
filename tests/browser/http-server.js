// An HTTP server of a test on a free port of the loopback interface.

import { once } from "node:events";
import { createServer } from "node:http";

/** Serves requests with the async function `handle`. An error in it is a 500 response with its text. */
export async function serveHttp(handle) {
  const server = createServer((request, response) => {
    handle(request, response).catch((error) => response.writeHead(500).end(String(error)));
  });
  await once(server.listen(0, "127.0.0.1"), "listening");

  async function stop() {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  }

  return { url: `http://127.0.0.1:${server.address().port}`, stop };
}
