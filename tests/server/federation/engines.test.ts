import { afterAll, afterEach, beforeAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FederationId } from "../../../src/ids.ts";
import { OPERATOR_SCOPE, policyHash, policyIdOf, type RemoteEngine } from "../../../src/protocol/federation/policy.ts";
import { requestIdOf, signRequest } from "../../../src/protocol/federation/request.ts";
import { OPERATOR, OPERATOR_ID, putStored } from "../../../src/server/federation/documents.ts";
import { askEngines } from "../../../src/server/federation/engines.ts";
import type { FederationSite } from "../../../src/server/federation/service.ts";
import { openSqlite } from "../../../src/storage/sqlite.ts";
import type { Store } from "../../../src/storage/store.ts";
import type { RemoteFiles } from "../../../src/wire/control.ts";
import { authority, type EngineProcess, startEngine } from "../../support/engines.ts";
import { bodies, certificateFor, FEDERATION, keyOf, policy, request, signerOf } from "../../support/policies.ts";

setDefaultTimeout(60_000);

/** Whom a server asks, and by whose word: a member's policy makes it call nothing that its operator has not listed. */

let directory: string;
let engine: EngineProcess;
let files: Omit<RemoteFiles, "url">;
let store: Store;
let told: { readonly why?: unknown }[];
let site: FederationSite;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "keyhold-engines-"));
  const [servers, clients] = [await authority(), await authority()];
  const own = await clients.issue("key server");
  const write = (name: string, content: string): string => {
    const path = join(directory, name);
    writeFileSync(path, content, { mode: 0o600 });
    return path;
  };
  files = {
    ca: write("ca.pem", servers.caPem),
    cert: write("own.pem", own.certPem),
    key: write("own.key", own.keyPem),
  };
  const pair = await servers.issue("engine");
  engine = await startEngine("docs/examples/policy-engine.mjs", pair, clients.caPem, { UNIT: "sat", MAX: "100" });
});
afterAll(async () => {
  await engine?.stop();
  rmSync(directory, { recursive: true, force: true });
});
beforeEach(async () => {
  store = await openSqlite(":memory:");
  told = [];
  site = { ctx: { store, now: Date.now }, notify: (event: object) => told.push(event) } as unknown as FederationSite;
});
afterEach(() => store.close());

async function list(...remotes: RemoteFiles[]): Promise<void> {
  const row = { id: OPERATOR_ID, owner: "", place: 1, value: { policy: null, remotes } };
  expect(await store.transaction((tx) => putStored(tx, OPERATOR, row, 0))).toBe(true);
}

async function votes(scope: FederationId = FEDERATION, url = engine.url): Promise<number> {
  const of = request({ ...bodies.sign, amount: { unit: "sat", value: "7" } });
  const remote: RemoteEngine = { name: "risk", url, key: keyOf("risk"), timeoutMs: 5_000 };
  const head = policy({ federationId: scope, remotes: [remote] });
  const [policyId, headHash] = [policyIdOf(head), policyHash(head)];
  const waiting = {
    policyId,
    policyHash: headHash,
    policy: { policyId, head, headHash },
    missing: [],
    remotes: [remote],
  };
  const standing = { key: { value: { certificate: { certificate: certificateFor(of.body) } } } };
  const signed = signRequest(signerOf("owner"), of);
  return (await askEngines(site)(waiting as never, signed, requestIdOf(of), standing as never)).length;
}

test("an engine that the operator has listed is asked, over mutual TLS", async () => {
  await list({ url: engine.url, ...files });
  expect(await votes()).toBe(1);
  expect(told).toEqual([]);
});

test("one of a member's policy that is not listed is not called at all", async () => {
  let called = 0;
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open: () => {
        called += 1;
      },
      data: () => undefined,
    },
  });
  try {
    const url = `https://127.0.0.1:${listener.port}/`;
    await list({ url: engine.url, ...files });
    expect(await votes(FEDERATION, url)).toBe(0);
    expect(told).toMatchObject([{ why: "not_listed" }]);
    expect(called).toBe(0);
    // the same address in the operator's own policy is
    expect(await votes(OPERATOR_SCOPE, url)).toBe(0);
    expect(called).toBe(1);
  } finally {
    listener.stop(true);
  }
});

test("one of the operator's own policy has to show a publicly trusted certificate where no files are listed", async () => {
  expect(await votes(OPERATOR_SCOPE)).toBe(0);
  expect(told).toHaveLength(1);
  await list({ url: engine.url, ...files });
  expect(await votes(OPERATOR_SCOPE)).toBe(1);
});

test("files that are not there are no consent", async () => {
  await list({ url: engine.url, ...files, key: join(directory, "none") });
  expect(await votes()).toBe(0);
  expect(told).toMatchObject([{ why: "tls_files" }]);
});
