/**
 * A remote policy engine: lets signatures through whose declared amount is small, and asks for nothing else
 * (docs/policies.md). It believes only what the requester has signed, not what the server says of it.
 *
 * Run it under Bun or Node with these variables: PORT (0: any), CERT, KEY, CA (PEM files: its own certificate and key,
 * the authority of the servers' client certificates), SIGNING_KEY (Ed25519, PKCS#8 PEM), UNIT, MAX.
 */
import { createHash, createPrivateKey, createPublicKey, sign, verify } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";

const { PORT = "0", CERT, KEY, CA, SIGNING_KEY, UNIT = "sat", MAX = "100000" } = process.env;
const VALID_MS = 10 * 60_000;
const BODY_MAX = 256 * 1024;
const signingKey = createPrivateKey(readFileSync(SIGNING_KEY));
const publicKey = createPublicKey(signingKey).export({ format: "der", type: "spki" }).subarray(-32);

/** canon of docs/protocol.md §1.1, for text, whole numbers, bytes, null and lists. */
function canon(value) {
  if (value === null) return Buffer.from([0]);
  if (typeof value === "number") {
    const out = Buffer.alloc(9, 3);
    out.writeBigUInt64BE(BigInt(value), 1);
    return out;
  }
  const [tag, body, length] = Array.isArray(value)
    ? [6, Buffer.concat(value.map(canon)), value.length]
    : typeof value === "string"
      ? [4, Buffer.from(value), Buffer.byteLength(value)]
      : [5, Buffer.from(value), value.length];
  const head = Buffer.alloc(5, tag);
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, body]);
}

/** Reads one value of canon; gives it and the place after it. */
function read(bytes, at = 0) {
  const tag = bytes[at];
  if (tag === 0) return [null, at + 1];
  if (tag === 1 || tag === 2) return [tag === 2, at + 1];
  if (tag === 3) return [bytes.readBigUInt64BE(at + 1), at + 9];
  const length = bytes.readUInt32BE(at + 1);
  let end = at + 5;
  if (tag === 6) {
    const items = [];
    for (let n = 0; n < length; n++) {
      const [item, next] = read(bytes, end);
      items.push(item);
      end = next;
    }
    return [items, end];
  }
  end += length;
  if ((tag !== 4 && tag !== 5) || end > bytes.length) throw new Error("not canon");
  const body = bytes.subarray(at + 5, end);
  return [tag === 4 ? body.toString() : body, end];
}

/** What the requester has signed; throws if it has not. */
function verified({ requestId, signed }) {
  const bytes = Buffer.from(signed.bytes, "base64url");
  const id = createHash("sha256")
    .update(canon(["keyhold/v1/federation-request-id", bytes]))
    .digest("hex");
  if (id !== requestId) throw new Error("another request");
  const [[label, federation, epoch, requester, , , , , body]] = read(bytes);
  const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), requester]);
  const key = createPublicKey({ key: spki, format: "der", type: "spki" });
  if (
    label !== "keyhold/v1/federation-request" ||
    !verify(null, bytes, key, Buffer.from(signed.signature, "base64url"))
  )
    throw new Error("not signed");
  return { federation, epoch: Number(epoch), body };
}

/** The decision: this is what you change. */
function decide([kind, , , form, , , amount]) {
  if (kind !== "sign") return [false, "only signatures are let through"];
  if (form !== "message") return [false, "this engine reads neither digests nor transactions"];
  if (amount === null || amount[0] !== UNIT) return [false, `an amount in ${UNIT} has to be declared`];
  return BigInt(amount[1]) <= BigInt(MAX) ? [true, ""] : [false, `more than ${MAX} ${UNIT}`];
}

function answer({ input }) {
  const { federation, epoch, body } = verified(input);
  const [allow, reason] = decide(body);
  const castAtMs = Date.now();
  const expiresAtMs = castAtMs + VALID_MS;
  const vote = canon([
    "keyhold/v1/federation-vote",
    federation,
    epoch,
    input.requestId,
    allow ? "approve" : "reject",
    Buffer.from(input.policy.hash, "hex"),
    castAtMs,
    expiresAtMs,
    reason,
    publicKey,
  ]);
  const signature = sign(null, vote, signingKey).toString("base64url");
  return { result: { allow, reason, castAtMs, expiresAtMs, signature } };
}

const tls = { cert: readFileSync(CERT), key: readFileSync(KEY), ca: readFileSync(CA) };
const server = createServer(
  { ...tls, requestCert: true, rejectUnauthorized: true, minVersion: "TLSv1.3" },
  (request, response) => {
    const parts = [];
    let length = 0;
    request.on("data", (part) => {
      length += part.length;
      if (length > BODY_MAX) request.destroy();
      parts.push(part);
    });
    request.on("end", () => {
      try {
        const body = JSON.stringify(answer(JSON.parse(Buffer.concat(parts).toString())));
        response.writeHead(200, { "content-type": "application/json" }).end(body);
      } catch {
        response.writeHead(400).end();
      }
    });
  },
);
server.listen(Number(PORT), "127.0.0.1", () => {
  process.stdout.write(`${JSON.stringify({ port: server.address().port, key: publicKey.toString("hex") })}\n`);
});
