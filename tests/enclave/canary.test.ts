import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { toBase64url } from "../../src/crypto/bytes.ts";
import { hpkeKeyPair, hpkeSeal } from "../../src/crypto/hpke.ts";
import { signerFromSeed } from "../../src/crypto/identity.ts";
import { type EnclaveOperation, enclaveOperations } from "../../src/enclave/api.ts";
import type { EnclaveInput, EnclaveOutput } from "../../src/enclave/frames.ts";
import { certificateHash, type SignedCertificate } from "../../src/protocol/federation/certificate.ts";
import { groupOf, interpolate } from "../../src/protocol/federation/groups.ts";
import { federationIdOf, type Manifest, type SignedManifest } from "../../src/protocol/federation/manifest.ts";
import {
  contributionInfo,
  type RequestBody,
  requestIdOf,
  signDecision,
  signOrder,
  signRequest,
} from "../../src/protocol/federation/request.ts";
import { assembleCertificate } from "../../src/protocol/federation/transcript.ts";
import { openPartial } from "../../src/protocol/federation/use.ts";
import type { Codec, Json } from "../../src/wire/codec.ts";
import { memoryHolds, sparseFileHolds } from "../supply/processes.ts";
import { testUnless } from "../support/skip.ts";

/** Scanning another process's memory is for root on Linux. */
const REASON =
  process.platform !== "linux"
    ? "needs Linux"
    : process.getuid?.() === 0
      ? undefined
      : "needs root to read the memory of a process";

/** Whether this system puts core dumps into the working directory. */
function coresFallHere(): boolean {
  const pattern = readFileSync("/proc/sys/kernel/core_pattern", "utf8");
  if (/[|/]/.test(pattern)) return false;
  return Bun.spawnSync(["sh", "-c", "ulimit -c unlimited"], { stderr: "ignore" }).exitCode === 0;
}

const random = (length: number) => crypto.getRandomValues(new Uint8Array(length));
const INDICES = [1, 2, 3];

/** What was in the enclaves alone: found out by the owner's export, and by root. */
interface Secrets {
  readonly shares: readonly Uint8Array[];
  readonly sealingKeys: readonly Uint8Array[];
  readonly key: Uint8Array;
}

describe("a share and the sealing key", () => {
  const dir = mkdtempSync(join(tmpdir(), "keyhold-canary-"));
  const canary = random(32);
  let parent: Bun.Subprocess<"pipe", "pipe", "ignore">;
  let secrets: Secrets;
  const waiting = new Map<number, (answer: { output?: Json; fault?: string }) => void>();
  let count = 0;

  function ask(index: number, operation: string, input: Json): Promise<Json> {
    count += 1;
    const id = count;
    return new Promise((resolve, reject) => {
      waiting.set(id, ({ output, fault }) => (output === undefined ? reject(new Error(fault)) : resolve(output)));
      parent.stdin.write(`${JSON.stringify({ id, index, operation, input })}\n`);
    });
  }
  async function call<O extends EnclaveOperation>(
    index: number,
    operation: O,
    input: EnclaveInput<O>,
  ): Promise<EnclaveOutput<O>> {
    const table = enclaveOperations[operation] as { input: Codec<unknown>; output: Codec<unknown> };
    return table.output.decode(await ask(index, operation, table.input.encode(input)), "") as EnclaveOutput<O>;
  }

  async function listen(): Promise<void> {
    let rest = "";
    for await (const chunk of parent.stdout) {
      const lines = (rest + new TextDecoder().decode(chunk)).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const answer = JSON.parse(line);
        waiting.get(answer.id)?.(answer);
      }
    }
  }

  async function federation(): Promise<SignedManifest> {
    const servers = await Promise.all(
      INDICES.map(async (index) => {
        const { identity, sealing } = await call(index, "info", {});
        const pin = `sha256:${String.fromCharCode(64 + index).repeat(43)}`;
        return { index, identity, sealing, url: `https://s${index}.example.org`, pin, policy: null };
      }),
    );
    const first = {
      name: "test",
      epoch: 1,
      threshold: 2,
      servers,
      createdAtMs: Date.now(),
      nonce: random(32),
      previous: new Uint8Array(32),
    };
    const manifest: Manifest = { ...first, federationId: federationIdOf(first) };
    const signatures = await Promise.all(INDICES.map((i) => call(i, "manifest.sign", { manifest, before: null })));
    return { manifest, signatures };
  }

  /** Makes a key, exports two shares, and gives what only the enclaves knew meanwhile. */
  async function runOnce(): Promise<Secrets> {
    const signed = await federation();
    const { manifest } = signed;
    const owner = signerFromSeed(random(32));
    const recipient = await hpkeKeyPair(random(32));
    const requestOf = (body: RequestBody) => {
      const createdAtMs = Date.now();
      const { federationId, epoch } = manifest;
      const expiresAtMs = createdAtMs + 600_000;
      return signRequest(owner, {
        federationId,
        epoch,
        requester: owner.publicKey,
        nonce: random(32),
        createdAtMs,
        expiresAtMs,
        keyring: null,
        body,
      });
    };
    const evidenceOf = (request: ReturnType<typeof requestOf>, certificate: SignedCertificate | null) => ({
      manifest: signed,
      request,
      certificate,
      certificateManifest: certificate && signed,
      serverPolicy: null,
      keyPolicy: null,
      votes: [],
      requesterApproval: null,
    });
    const purpose = {
      type: "ed25519",
      length: 32,
      custody: "delegated",
      control: "unilateral",
      policy: null,
      owner: null,
    } as const;
    const request = requestOf({ kind: "generate", ...purpose });
    const requestId = requestIdOf(request.request);
    const contributions = await Promise.all(
      manifest.servers.map(async ({ index, sealing }) => ({
        index,
        sealed: await hpkeSeal(sealing, contributionInfo(requestId, 1, index), random(32), random),
      })),
    );
    const order = signOrder(owner, { requestId, attempt: 1, roster: INDICES, contributions, ownerNonces: null });
    let steps = await Promise.all(
      INDICES.map((i) => call(i, "begin", { evidence: evidenceOf(request, null), order, share: null })),
    );
    while (steps.some(({ outcome }) => outcome === null)) {
      const messages = steps.flatMap((step) => step.messages);
      steps = await Promise.all(INDICES.map((i) => call(i, "relay", { requestId, attempt: 1, messages })));
    }
    const views = steps.flatMap(({ outcome }) => (outcome?.certificate ? [{ certificate: outcome.certificate }] : []));
    const terms = { manifest, request: request.request, order: order.order, before: null };
    const made = assembleCertificate(
      terms,
      views,
      steps.flatMap((step) => step.messages),
    );
    if (!made) throw new Error("no certificate");
    const hash = certificateHash(made.certificate);
    const acceptance = signDecision(owner, { requestId, verdict: "accept", attempt: 1, certificateHash: hash });
    const certificate: SignedCertificate = { ...made, acceptance };
    const sealed = await Promise.all(
      steps.map(async (step, at) => {
        if (!step.sealed) throw new Error("no share");
        return (await call(at + 1, "confirm", { manifest: signed, certificate, sealed: step.sealed })).sealed;
      }),
    );
    const { keyId, generation } = made.certificate;
    const body: RequestBody = {
      kind: "release",
      form: "message" as const,
      input: 0,
      keyId,
      generation,
      purpose: "export",
      message: null,
      amount: null,
      recipient: recipient.publicKey,
    };
    const release = requestOf(body);
    const releasing = signOrder(owner, {
      requestId: requestIdOf(release.request),
      attempt: 1,
      roster: [1, 2],
      contributions: [],
      ownerNonces: null,
    });
    const use = { manifest, certificate: made.certificate, request: release.request, order: releasing.order };
    const shares = await Promise.all(
      [1, 2].map(async (i) => {
        const input = { evidence: evidenceOf(release, certificate), order: releasing, share: sealed[i - 1] ?? null };
        const [message] = (await call(i, "begin", input)).messages;
        const opened = message && (await openPartial(use, recipient, message));
        if (!opened?.value) throw new Error("no share");
        return { index: i, share: opened.value };
      }),
    );
    const group = groupOf("ed25519");
    const key = interpolate(group, shares);
    // the search is for the right thing: these shares make the key
    expect(group.encodePoint(group.base.multiply(key))).toEqual(made.certificate.publicKey);
    return {
      shares: shares.map(({ share }) => share),
      sealingKeys: INDICES.map((i) => new Uint8Array(readFileSync(join(dir, String(i), "enclave/sealing.key")))),
      key: group.encodeScalar(key),
    };
  }

  beforeAll(async () => {
    if (REASON !== undefined) return;
    for (const index of INDICES) mkdirSync(join(dir, String(index)), { mode: 0o700 });
    const script = join(import.meta.dir, "../support/enclaveparent.ts");
    parent = Bun.spawn(["sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh", process.execPath, script, dir], {
      cwd: dir,
      stdin: "pipe",
      stdout: "pipe",
      stderr: "ignore",
    });
    void listen();
    secrets = await runOnce();
    // reversed on the way, so that only what the process made of it is found
    await ask(1, "plant", canary.toHex().split("").reverse().join(""));
  }, 60_000);
  afterAll(async () => {
    if (REASON === undefined) {
      parent.kill("SIGKILL");
      await parent.exited;
    }
    rmSync(dir, { recursive: true, force: true });
  });

  /** Bytes and the texts that programs make of them. */
  const forms = (secret: Uint8Array): Uint8Array[] => [
    secret,
    ...[secret.toHex(), secret.toBase64(), toBase64url(secret)].map((text) => new TextEncoder().encode(text)),
  ];
  const wanted = () => [...secrets.shares, ...secrets.sealingKeys, secrets.key].flatMap(forms);
  const found = (holds: (wanted: readonly Uint8Array[]) => readonly boolean[]) => ({
    secrets: holds(wanted()).filter((one) => one).length,
    canary: holds([canary])[0],
  });

  testUnless(REASON, "are not in the memory of the server, where a canary is found", () => {
    expect(found((bytes) => memoryHolds(parent.pid, bytes))).toEqual({ secrets: 0, canary: true });
  });

  testUnless(REASON, "are not in its database, log or any other file beside the enclaves' own", () => {
    const files = readdirSync(dir, { recursive: true, encoding: "utf8", withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name !== "sealing.key")
      .map((entry) => readFileSync(join(entry.parentPath, entry.name)));
    expect(files.length).toBeGreaterThan(6);
    const all = Buffer.concat(files);
    expect(wanted().filter((one) => all.includes(one)).length).toBe(0);
    // its database is among what was searched: the sealed shares are there
    expect(all.includes('"sealed":"')).toBe(true);
  });

  testUnless(REASON, "an enclave leaves no core, and its memory is closed", () => {
    // asleep, or at work just now
    const child = new RegExp(`\\) [SRD] ${parent.pid} `);
    const enclaves = readdirSync("/proc").filter((pid) => {
      try {
        return /^\d+$/.test(pid) && child.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
      } catch {
        return false;
      }
    });
    expect(enclaves.length).toBe(3);
    for (const pid of enclaves) {
      expect(readFileSync(`/proc/${pid}/limits`, "utf8")).toMatch(/^Max core file size +0 +0 /m);
      expect(readFileSync(`/proc/${pid}/environ`, "utf8")).not.toContain("KEYHOLD");
    }
  });

  // where cores go is the kernel's own setting, which no test may change: without one there is nothing to look into
  if (REASON === undefined && coresFallHere()) {
    test("are not in a core dump of the server, where the canary is", async () => {
      parent.kill("SIGABRT");
      await parent.exited;
      const names = readdirSync(dir).filter((name) => name.startsWith("core"));
      expect(names.length).toBe(1);
      expect(found((bytes) => sparseFileHolds(join(dir, names[0] ?? ""), bytes))).toEqual({ secrets: 0, canary: true });
    }, 60_000);
  }
});
