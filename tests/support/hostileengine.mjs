/** An engine that misbehaves as the path asks: the body that it was sent comes back in nothing but its log. */
import { readFileSync } from "node:fs";
import { createServer } from "node:https";

const { CERT, KEY, CA, MAX_TLS } = process.env;
const tls = { cert: readFileSync(CERT), key: readFileSync(KEY), ca: readFileSync(CA) };
const options = MAX_TLS ? { ...tls, maxVersion: MAX_TLS } : { ...tls, requestCert: true, rejectUnauthorized: true };

const fixed = new Map();

const server = createServer(options, (request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const url = new URL(request.url, "https://engine");
    const mode = url.pathname.slice(1);
    if (mode === "set") {
      const { name, status = 200, headers = {}, body } = JSON.parse(Buffer.concat(parts).toString());
      fixed.set(name, { status, headers, body });
      response.writeHead(200).end();
    } else if (mode === "silent") {
      // no answer ever
    } else if (mode === "drip") {
      response.writeHead(200, { "content-type": "application/json" });
      const timer = setInterval(() => response.write(" "), 20);
      response.on("close", () => clearInterval(timer));
    } else if (mode === "endless") {
      response.writeHead(200, { "content-type": "application/json" });
      const more = () => {
        while (response.write(" ".repeat(8192)));
      };
      response.on("drain", more);
      response.on("error", () => undefined);
      more();
    } else if (mode === "broken") {
      response.writeHead(200, { "content-length": "100" });
      response.write("{");
      setTimeout(() => response.destroy(), 20);
    } else {
      const { status, headers, body } = fixed.get(mode) ?? { status: 404, headers: {}, body: "" };
      response.writeHead(status, headers).end(body);
    }
  });
});
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`${JSON.stringify({ port: server.address().port })}\n`);
});
