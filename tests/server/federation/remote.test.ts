import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { toBase64url } from "../../../src/crypto/bytes.ts";
import type { RemoteEngine, SignedVote } from "../../../src/protocol/federation/policy.ts";
import { policyHash, policyIdOf } from "../../../src/protocol/federation/policy.ts";
import { type FederatedRequest, signRequest } from "../../../src/protocol/federation/request.ts";
import { verifyVote } from "../../../src/protocol/federation/votes.ts";
import { askRemote, type EngineTls } from "../../../src/server/federation/remote.ts";
import { engineInput, type RemoteQuestion, VERDICT_MAX } from "../../../src/wire/federation/remoteengine.ts";
import { authority, type EngineProcess, type Pair, startEngine, type TestAuthority } from "../../support/engines.ts";
import { KEYRING } from "../../support/keyringrequests.ts";
import { bodies, certificateFor, idOf, keyOf, policy, request, signerOf, voteOf } from "../../support/policies.ts";
import { BOB, evmBytes, evmPayment, testKey } from "../../support/transactions.ts";

setDefaultTimeout(60_000);

const document = policy();
const asked = (over: Partial<FederatedRequest> = {}, amount: string | null = "100"): FederatedRequest =>
  request({ ...bodies.sign, amount: amount === null ? null : { unit: "sat", value: amount } }, over);
const question = (of: FederatedRequest): RemoteQuestion => ({
  signed: signRequest(signerOf("owner"), of),
  certificate: certificateFor(of.body),
  policy: { policyId: policyIdOf(document), head: document, headHash: policyHash(document) },
  nowMs: Date.now(),
});

let servers: TestAuthority;
let clients: TestAuthority;
let client: Pair;
let engine: EngineProcess;
let hostile: EngineProcess;
let tls: EngineTls;
beforeAll(async () => {
  servers = await authority();
  clients = await authority();
  client = await clients.issue("key server");
  tls = { caPem: servers.caPem, ...client };
  const pair = await servers.issue("engine");
  engine = await startEngine("docs/examples/policy-engine.mjs", pair, clients.caPem, { UNIT: "sat", MAX: "100" });
  hostile = await startEngine("tests/support/hostileengine.mjs", pair, clients.caPem);
});
afterAll(async () => {
  await engine?.stop();
  await hostile?.stop();
});

const risk = (url: string, over: Partial<RemoteEngine> = {}): RemoteEngine => ({
  name: "risk",
  url,
  key: keyOf("risk"),
  timeoutMs: 5_000,
  ...over,
});
const ask = (url: string, of = asked(), over: Partial<RemoteEngine> = {}, own: EngineTls | null = tls) =>
  askRemote(risk(url, over), question(of), own);
const at = (path: string) => new URL(`/${path}`, hostile.url).href;

/** Lets the hostile engine answer so. */
async function answering(
  name: string,
  body: unknown,
  over: { status?: number; headers?: Record<string, string> } = {},
) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const secure = { ca: tls.caPem, cert: tls.certPem, key: tls.keyPem };
  const set = await fetch(at("set"), {
    method: "POST",
    body: JSON.stringify({ name, body: text, ...over }),
    tls: secure,
  });
  expect(set.status).toBe(200);
  return at(name);
}

/** A result as an honest engine gives it, signed by `name`. */
function result(of: FederatedRequest, name = "risk", over: Parameters<typeof voteOf>[3] = {}) {
  const now = Date.now();
  const { vote, signature }: SignedVote = voteOf(name, of, document, {
    castAtMs: now,
    expiresAtMs: now + 60_000,
    ...over,
  });
  const { castAtMs, expiresAtMs, reason } = vote;
  return { allow: vote.verdict === "approve", reason, castAtMs, expiresAtMs, signature: toBase64url(signature) };
}

describe("the engine of docs/examples", () => {
  test("allows what is small, with a verdict that counts as its vote", async () => {
    const { vote } = await ask(engine.url);
    expect(vote?.vote).toMatchObject({ verdict: "approve", key: keyOf("risk"), requestId: idOf(asked()), reason: "" });
    expect(vote !== null && verifyVote(vote)).toBe(true);
  });

  test("rejects what is too much, what is undeclared and what is no signature, with the reason", async () => {
    const reasonOf = async (of: FederatedRequest) => {
      const { vote } = await ask(engine.url, of);
      return [vote?.vote.verdict, vote?.vote.reason];
    };
    expect(await reasonOf(asked({}, "101"))).toEqual(["reject", "more than 100 sat"]);
    expect(await reasonOf(asked({}, null))).toEqual(["reject", "an amount in sat has to be declared"]);
    expect(await reasonOf(request(bodies.export))).toEqual(["reject", "only signatures are let through"]);
    expect(await reasonOf(request(bodies.generate))).toEqual(["reject", "only signatures are let through"]);
  });

  test("does not sign for a request that its requester has not signed", async () => {
    const of = asked();
    const honest = question(of);
    const forged = { ...honest, signed: signRequest(signerOf("mallory"), of) };
    expect(await askRemote(risk(engine.url), forged, tls)).toEqual({ vote: null, why: "unavailable" });
  });

  test("answers only a server with a certificate of its authority", async () => {
    const other = await (await authority()).issue("stranger");
    const expired = await clients.issue("late", { expired: true });
    for (const own of [other, expired]) {
      expect((await ask(engine.url, asked(), {}, { caPem: servers.caPem, ...own })).vote).toBeNull();
    }
    const none = { caPem: servers.caPem, certPem: "", keyPem: "" };
    expect((await ask(engine.url, asked(), {}, none)).vote).toBeNull();
    // and a connection of one who may is not lent to one who may not
    expect((await ask(engine.url)).vote).not.toBeNull();
    expect((await ask(engine.url, asked(), {}, { caPem: servers.caPem, ...other })).vote).toBeNull();
  });
});

describe("TLS", () => {
  test("an engine of another authority is not asked, nor without one", async () => {
    const { caPem } = await authority();
    const strange = await ask(engine.url, asked(), {}, { ...tls, caPem });
    expect(strange).toMatchObject({ vote: null });
    expect((await ask(engine.url, asked(), {}, null)).vote).toBeNull();
  });

  test("nor one whose certificate is for another host or has expired", async () => {
    for (const options of [{ host: "engine.example" }, { expired: true }]) {
      const pair = await servers.issue("engine", options);
      const other = await startEngine("docs/examples/policy-engine.mjs", pair, clients.caPem);
      try {
        expect((await ask(other.url)).vote).toBeNull();
      } finally {
        await other.stop();
      }
    }
  });

  test("nor one that speaks TLS 1.2 at most", async () => {
    const pair = await servers.issue("old");
    const old = await startEngine("tests/support/hostileengine.mjs", pair, clients.caPem, { MAX_TLS: "TLSv1.2" });
    try {
      const secure = { ca: tls.caPem };
      // it is there, for those who take what they get
      expect((await fetch(old.url, { method: "POST", tls: secure })).status).toBe(404);
      const { vote } = await ask(old.url);
      expect(vote).toBeNull();
    } finally {
      await old.stop();
    }
  });

  test("nor anything but https", async () => {
    expect(await ask(engine.url.replace("https:", "http:"))).toEqual({ vote: null, why: "bad_input" });
  });

  test("nobody there is no verdict", async () => {
    const gone = await startEngine("docs/examples/policy-engine.mjs", await servers.issue("gone"), clients.caPem);
    await gone.stop();
    expect((await ask(gone.url)).vote).toBeNull();
  });
});

describe("an engine that answers badly has not answered", () => {
  test("what a good answer looks like here", async () => {
    const of = asked();
    const url = await answering("good", { result: result(of), decision_id: "x", metrics: { timer: 1 } });
    expect((await ask(url, of)).vote?.vote.verdict).toBe("approve");
    const { reason: _, ...bare } = result(of);
    expect((await ask(await answering("bare", { result: bare }), of)).vote?.vote.reason).toBe("");
  });

  test.each(["silent", "drip"])("%s: it takes too long", async (mode) => {
    expect(await ask(at(mode), asked(), { timeoutMs: 300 })).toEqual({ vote: null, why: "timed_out" });
  });

  test("endless", async () => {
    expect(await ask(at("endless"))).toEqual({ vote: null, why: "too_large" });
  });

  test("cut off", async () => {
    expect((await ask(at("broken"))).vote).toBeNull();
  });

  test("longer than allowed, though it would be right", async () => {
    const of = asked();
    const fits = JSON.stringify({ result: result(of) });
    const pad = (length: number) => fits + " ".repeat(length - fits.length);
    expect((await ask(await answering("fits", pad(VERDICT_MAX)), of)).vote).not.toBeNull();
    expect(await ask(await answering("long", pad(VERDICT_MAX + 1)), of)).toEqual({ vote: null, why: "too_large" });
  });

  test("a redirect, even to itself, is not followed", async () => {
    const of = asked();
    await answering("good", { result: result(of) });
    for (const status of [301, 302, 307, 308]) {
      const url = await answering("moved", "", { status, headers: { location: at("good") } });
      expect(await ask(url, of)).toEqual({ vote: null, why: "unavailable" });
    }
  });

  test.each([201, 204, 400, 403, 500, 503])("status %i with a right body", async (status) => {
    const of = asked();
    const url = await answering("status", status === 204 ? "" : { result: result(of) }, { status });
    expect(await ask(url, of)).toEqual({ vote: null, why: "unavailable" });
  });

  const now = () => Date.now();
  const broken: readonly (readonly [string, (of: FederatedRequest) => unknown])[] = [
    ["nothing", () => ""],
    ["no JSON", () => "allow"],
    ["true, as engines say without a signature", () => ({ result: true })],
    ["an undefined decision", () => ({})],
    ["no signature", (of) => ({ result: { ...result(of), signature: undefined } })],
    ["an empty signature", (of) => ({ result: { ...result(of), signature: "" } })],
    ["a field nobody knows", (of) => ({ result: { ...result(of), extra: 1 } })],
    ["a word for a boolean", (of) => ({ result: { ...result(of), allow: "true" } })],
    ["a list", (of) => [result(of)]],
  ];
  test.each(broken)("%s", async (_what, body) => {
    const of = asked();
    expect(await ask(await answering("broken-answer", body(of)), of)).toEqual({ vote: null, why: "bad_input" });
  });

  const untrue: readonly (readonly [string, (of: FederatedRequest) => unknown, string])[] = [
    ["another key's signature", (of) => result(of, "mallory"), "bad_signature"],
    ["an approver's signature", (of) => result(of, "alice"), "bad_signature"],
    ["a verdict on another request", () => result(asked({ nonce: new Uint8Array(32) })), "bad_signature"],
    ["a verdict on a larger amount", () => result(asked({}, "101")), "bad_signature"],
    ["a verdict under another policy", (of) => result(of, "risk", { policyHash: new Uint8Array(32) }), "bad_signature"],
    ["a verdict for another epoch", (of) => result(of, "risk", { epoch: 9 }), "bad_signature"],
    ["a rejection turned", (of) => ({ ...result(of, "risk", { verdict: "reject" }), allow: true }), "bad_signature"],
    ["another reason", (of) => ({ ...result(of), reason: "because" }), "bad_signature"],
    ["a longer life", (of) => ({ ...result(of), expiresAtMs: now() + 3_600_000 }), "bad_signature"],
    [
      "a verdict from the future",
      (of) => result(of, "risk", { castAtMs: now() + 600_000, expiresAtMs: now() + 900_000 }),
      "from_the_future",
    ],
    [
      "a verdict that has expired",
      (of) => result(of, "risk", { castAtMs: now() - 900_000, expiresAtMs: now() - 1 }),
      "expired",
    ],
  ];
  test.each(untrue)("%s", async (_what, body, why) => {
    const of = asked();
    expect(await ask(await answering("untrue", { result: body(of) }), of)).toEqual({ vote: null, why });
  });
});

describe("what an engine is told", () => {
  test("all that the requester signed, and facts of it in plain form", () => {
    const of = asked();
    expect(engineInput(question(of))).toMatchObject({
      requestId: idOf(of),
      action: "sign",
      kind: "sign",
      form: "message" as const,
      input: 0,
      requester: keyOf("owner").toHex(),
      amount: { unit: "sat", value: "100" },
      key: { type: "ed25519", custody: "delegated", control: "unilateral" },
      policy: { name: "treasury", version: 1, hash: policyHash(document).toHex() },
      message: toBase64url(new Uint8Array(5)),
      shares: null,
    });
  });

  test("through which keyring it came, and of which workspace", () => {
    const keyring = { registry: keyOf("registry"), keyringId: KEYRING, workspaceId: policyIdOf(document) };
    expect(engineInput(question(asked({ keyring })))).toMatchObject({
      keyring: { id: KEYRING, workspace: policyIdOf(document), registry: keyOf("registry").toHex() },
    });
    expect(engineInput(question(asked()))).toMatchObject({ keyring: null });
  });

  test("of a transaction what its bytes say", () => {
    const wallet = testKey("secp256k1", 7);
    const message = evmBytes(evmPayment());
    const of = request({ ...bodies.release, form: "evm", message, amount: { unit: "wei.1", value: "1" } });
    const { signed, certificate, ...rest } = question(of);
    const paying = {
      ...rest,
      signed,
      certificate: certificate && { ...certificate, type: wallet.type, publicKey: wallet.publicKey },
    };
    expect(engineInput(paying)).toMatchObject({
      form: "evm",
      amount: { unit: "wei.1", value: "1042000000000000" },
      recipients: [BOB],
      message: toBase64url(message),
    });
    expect(engineInput(question(asked()))).toMatchObject({ recipients: null });
  });

  test.each(Object.entries(bodies))("%s has an input", (_name, body) => {
    const input = engineInput(question(request(body)));
    expect(JSON.parse(JSON.stringify(input))).toEqual(input);
  });

  test("not without the key's certificate", () => {
    expect(() => engineInput({ ...question(asked()), certificate: null })).toThrow("certificate");
  });
});
