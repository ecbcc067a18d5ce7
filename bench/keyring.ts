import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { openMembership } from "../src/client/federation/membership.ts";
import { askServer } from "../src/client/federation/reaching.ts";
import { firstDocument } from "../src/client/keyring/documents.ts";
import { connect } from "../src/client/login.ts";
import { NO_LOG } from "../src/client/logpin.ts";
import type { Surroundings } from "../src/client/model.ts";
import type { Session } from "../src/client/session.ts";
import type { Signer } from "../src/crypto/identity.ts";
import type { FederatedRequestId, KeyringRequestId } from "../src/ids.ts";
import { approvalSigner } from "../src/protocol/federation/credentials.ts";
import type { SignedManifest } from "../src/protocol/federation/manifest.ts";
import { policyHash } from "../src/protocol/federation/policy.ts";
import { signPolicy } from "../src/protocol/federation/policychain.ts";
import { registryScope, requestIdOf, signRequest } from "../src/protocol/federation/request.ts";
import { signVote } from "../src/protocol/federation/votes.ts";
import { keyringEnrolmentBytes, type Party } from "../src/protocol/keyring/keyring.ts";
import type { KeyringEvent } from "../src/wire/keyring/views.ts";
import { type Federation, startFederation } from "./federation.ts";
import { keyhold } from "./harness.ts";
import { cleanEnvironment, firstLine, run, type Served, startServe, type World } from "./processes.ts";

/** A registry, a keyring with a connector beside each server, and a workspace of one owner: all real processes. */
export interface Keyring extends Federation {
  readonly registry: Served;
  readonly owner: Owner;
  /** Starts all connectors, in the order of the servers. */
  letLoose(): Promise<readonly Connector[]>;
}

/** A connector's process. */
export interface Connector {
  readonly pid: number;
  /** What its log says of the tasks that it has done. */
  tasks(): Promise<readonly DoneTask[]>;
  /** Lets it drain. */
  stop(): Promise<void>;
}

export interface DoneTask {
  readonly itemId: FederatedRequestId;
  readonly task: string;
  /** When it was begun, in milliseconds since 1970. */
  readonly fromMs: number;
}

/** A request that was created and approved. */
export interface Asked {
  readonly requestId: KeyringRequestId;
  readonly itemId: FederatedRequestId;
}

/** The workspace's owner, in this process, with an open session at the registry. */
export interface Owner {
  /** Creates a request for an Ed25519 key, and approves it. */
  ask(): Promise<Asked>;
  /** Events of the workspace after that number: one page. */
  events(after: number): Promise<readonly KeyringEvent[]>;
}

const around: Surroundings = {
  now: Date.now,
  random: (length) => new Uint8Array(randomBytes(length)),
  notice: () => undefined,
};

const HOUR = 3_600_000;
const FEES = { key: 10, signature: 1 };
const CREDITS = 1_000_000;

const place = ({ url, pin }: Served): string => `${url}#${pin}`;

/** Starts `count` servers, a registry and what belongs to them; no connector runs yet. */
export async function startKeyring(world: World, count: number, threshold: number): Promise<Keyring> {
  const bin = await keyhold();
  const federation = await startFederation(world, count, threshold);
  const dir = join(world.dir, "registry", "server");
  const flags = ["--listen", "127.0.0.1:0", "--json", "--registration", "open", "--registry"];
  const registry = await startServe(world, { command: [bin, "serve", "--dir", dir, ...flags], name: "registry" });
  const parties: Party[] = [];
  for (const [i, server] of federation.servers.entries()) {
    const name = `server-${i + 1}`;
    const env = { KEYHOLD_HOME: join(world.dir, name) };
    const at = ["--dir", join(world.dir, name, "connector"), "--registry", place(registry), "--server", place(server)];
    const { stdout } = await run([bin, "connector", "init", ...at, "--json"], { env });
    const { data } = JSON.parse(stdout) as { data: { account: string; keyHex: string; registry: { keyHex: string } } };
    const allow = [bin, "server", "connector", "allow", data.account, "--registry", data.registry.keyHex];
    await run([...allow, "--dir", join(world.dir, name, "server")], { env });
    parties.push({ name, index: i + 1, key: Uint8Array.fromHex(data.keyHex) });
  }
  const [first] = federation.servers;
  if (!first) throw new RangeError("a federation has servers");
  const { federations } = await (await askServer(first, connect, around)).ask("federation.info", {});
  const [manifest] = federations;
  if (!manifest) throw new Error("the server belongs to no federation");
  const owner = await ownerAt(registry, manifest, parties, async (workspaceId) => {
    const env = { KEYHOLD_HOME: join(world.dir, "registry") };
    await run([bin, "workspace", "credit", workspaceId, String(CREDITS), "--note", "bench", "--dir", dir], { env });
  });
  const letLoose = () => Promise.all(parties.map(({ name }) => startConnector(world, bin, join(world.dir, name))));
  return { ...federation, registry, owner, letLoose };
}

async function startConnector(world: World, bin: string, dir: string): Promise<Connector> {
  const log = join(dir, "connector.log");
  const child = Bun.spawn([bin, "connector", "run", "--dir", join(dir, "connector"), "--verbose", "--json"], {
    cwd: world.dir,
    env: cleanEnvironment({ KEYHOLD_HOME: dir }),
    stdin: "ignore",
    stdout: "pipe",
    stderr: Bun.file(log),
  });
  world.stopLater(child);
  await firstLine(child.stdout);
  return {
    pid: child.pid,
    async tasks() {
      const lines = (await Bun.file(log).text()).split("\n").filter((line) => line.includes('"event":"task"'));
      return lines.map((line) => {
        const { at, itemId, task, ms } = JSON.parse(line) as { at: string; ms: number } & Omit<DoneTask, "fromMs">;
        return { itemId, task, fromMs: Date.parse(at) - ms };
      });
    },
    async stop() {
      child.kill("SIGTERM");
      await child.exited;
    },
  };
}

/** An account at the registry with an owner key, and an open session. */
async function enter({ url, pin }: Served): Promise<{ session: Session; signer: Signer; registry: Uint8Array }> {
  const { ask, caPem, statementNumber } = await askServer({ url, pin }, connect, around);
  const { registry } = await ask("keyring.info", {});
  const federationId = registryScope(registry);
  const secret = around.random(32);
  const signer = approvalSigner(secret, federationId);
  const verified = { seq: 0, link: new Uint8Array(32), revision: 0 };
  const { session } = await openMembership({
    secret,
    federationId,
    server: { url, pin, index: 0 },
    held: { index: 0, userId: null, enrolled: false, caPem, statementNumber, verified, log: NO_LOG },
    invite: null,
    reach: connect,
    around,
    enrol: async (entered, userId) => {
      const key = signer.publicKey;
      const proof = signer.sign(keyringEnrolmentBytes({ registry, userId, role: "owner", key }));
      await entered.call("keyring.enrol", { role: "owner", key, proof });
    },
  });
  return { session, signer, registry };
}

async function ownerAt(
  place: Served,
  manifest: SignedManifest,
  parties: Party[],
  credit: (workspaceId: string) => Promise<void>,
): Promise<Owner> {
  const { session, signer, registry } = await enter(place);
  const { federationId, epoch, threshold } = manifest.manifest;
  const vaults = { name: "bench", nonce: around.random(32), manifest, threshold, fees: FEES, parties };
  const { keyringId } = (await session.call("keyring.create", vaults)).output;
  const key = signer.publicKey;
  const scope = registryScope(registry);
  const document = firstDocument({ scope, name: "bench", owners: [{ name: "owner", key }], admin: 1, sign: 1 });
  const policy = { document, signatures: [signPolicy(signer, document)] };
  const { workspaceId } = (await session.call("workspace.create", { name: "bench", policy })).output;
  await credit(workspaceId);
  return {
    async ask() {
      const createdAtMs = around.now();
      const expiresAtMs = createdAtMs + HOUR;
      const item = signRequest(signer, {
        ...{ federationId, epoch, requester: key, nonce: around.random(32), createdAtMs, expiresAtMs },
        keyring: { registry, keyringId, workspaceId },
        body: {
          ...{ kind: "generate", type: "ed25519", length: 32 },
          ...{ custody: "delegated", control: "shared", policy: workspaceId, owner: null },
        },
      });
      const itemId = requestIdOf(item.request);
      const { requestId } = (
        await session.call("keyring.request", { workspaceId, keyringId, items: [item], feeMax: null })
      ).output;
      const vote = signVote(signer, {
        ...{ federationId, epoch, requestId: itemId, verdict: "approve", policyHash: policyHash(document) },
        ...{ castAtMs: createdAtMs, expiresAtMs, reason: "" },
      });
      await session.call("keyring.vote", { requestId, votes: [vote] });
      return { requestId, itemId };
    },
    events: async (after) => (await session.call("workspace.events", { workspaceId, after })).output.items,
  };
}
