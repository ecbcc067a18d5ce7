import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createFederation } from "../../../src/client/federation/creating.ts";
import { joinFederation } from "../../../src/client/federation/joining.ts";
import type { connect } from "../../../src/client/login.ts";
import { newModel, type Surroundings } from "../../../src/client/model.ts";
import type { Open } from "../../../src/client/opened.ts";
import type { ProfileServer } from "../../../src/client/profile.ts";
import { createVaultFile } from "../../../src/client/vaultbox.ts";
import { Fault } from "../../../src/errors.ts";
import { newId, type UserId } from "../../../src/ids.ts";
import { KDF } from "../../../src/protocol/defaults.ts";
import { manifestHash } from "../../../src/protocol/federation/manifest.ts";
import { createVault } from "../../../src/protocol/vault.ts";
import type { Limits } from "../../../src/server/context.ts";
import { undelivered } from "../../../src/wire/failure.ts";
import { type FederatedServer, startFederated } from "../../support/federatedserver.ts";
import { type Middle, passwordOf, random, testSurroundings } from "../../support/harness.ts";

/** One server of the world as clients reach it. */
export interface WorldServer {
  readonly url: string;
  readonly pin: string;
  readonly at: FederatedServer;
  /** Not reachable from now on, or again. */
  away: boolean;
  /** Sees and may replace what goes to and fro. */
  middle: Middle | undefined;
  /** Milliseconds that its clock says more than the client's. */
  skew(ms: number): void;
}

/** Servers with real handlers, stores and enclaves in this process, and vaults that reach them. */
export interface ClientWorld {
  readonly servers: readonly WorldServer[];
  readonly reach: typeof connect;
  /** Calls by operation that reached any server. */
  readonly calls: string[];
  server(index: number): WorldServer;
  /** A vault without a home server. */
  vault(): Promise<TestVault>;
  close(): Promise<void>;
}

export interface TestVault {
  readonly open: Open;
  readonly notices: string[];
}

/** What `federation create` takes for all servers of a world. */
export const createInput = (
  world: ClientWorld,
  name = "trio",
  threshold = Math.floor(world.servers.length / 2) + 1,
) => ({
  name,
  threshold,
  servers: world.servers.map(({ url, pin }) => ({ url, pin })),
});

const away = (url: string): Fault => undelivered(new Fault("unreachable", `nothing listens at ${url}`));

export async function clientWorld(
  n = 3,
  options: { limits?: Partial<Limits>; registration?: "open" | "invite" } = {},
): Promise<ClientWorld> {
  const calls: string[] = [];
  const directories: string[] = [];
  const servers: WorldServer[] = [];
  for (let i = 1; i <= n; i++) {
    const at = await startFederated(options);
    const one: WorldServer = {
      url: `https://s${i}.example.org:7443`,
      pin: at.pin,
      at,
      away: false,
      middle: undefined,
      skew: (ms) => at.server.advance(ms),
    };
    servers.push(one);
  }
  const reach: typeof connect = async (known: ProfileServer) => {
    const found = servers.find(({ url }) => url === known.url);
    if (!found || found.away) throw away(known.url);
    if (found.pin !== known.pin) throw new Fault("pin_mismatch", "the server's identity is not the pinned one");
    const link = found.at.server.link("127.0.0.1", async (operation, body, forward) => {
      if (found.away) throw away(found.url);
      calls.push(operation);
      return found.middle ? found.middle(operation, body, forward) : forward(operation, body);
    });
    return { link, server: { ...known, caPem: null, statementNumber: 1 } };
  };
  return {
    servers,
    reach,
    calls,
    server(index) {
      const found = servers[index - 1];
      if (!found) throw new Error(`no server ${index}`);
      return found;
    },
    async vault() {
      const directory = mkdtempSync(join(tmpdir(), "keyhold-federation-"));
      directories.push(directory);
      const notices: string[] = [];
      const around: Surroundings = testSurroundings(notices);
      const vault = await createVault(passwordOf("local"), { cost: KDF.test, allowTestKdf: true }, random);
      const model = newModel(newId<UserId>(random), random(32), null);
      const box = { path: join(directory, "test.vault"), vault, model };
      await createVaultFile(box, around);
      return { open: { box, session: null, around }, notices };
    },
    async close() {
      for (const { at } of servers) await at.close();
      for (const directory of directories) rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** What the operators do on their own machines. */
export async function acceptAll(world: ClientWorld, indices = world.servers.map((_, i) => i + 1)): Promise<void> {
  for (const index of indices) {
    const { service } = world.server(index).at;
    for (const { manifest, state } of (await service.control["federation.list"]({})).items) {
      if (state !== "waiting") continue;
      const { federationId, epoch } = manifest;
      await service.control["federation.accept"]({ federationId, epoch, hash: manifestHash(manifest) });
    }
  }
}

/** A federation of all servers of the world, complete. */
export async function formed(world: ClientWorld, open: Open, name = "trio"): Promise<void> {
  await createFederation(open, createInput(world, name), world);
  await acceptAll(world);
  const { complete } = await createFederation(open, createInput(world, name), world);
  if (!complete) throw new Error("the federation is not complete");
}

/** Joins it by the first server. */
export function join1(
  world: ClientWorld,
  open: Open,
  change: { readonly server?: number; readonly name?: string } = {},
) {
  const { url, pin } = world.server(change.server ?? 1);
  return joinFederation(open, { url, pin, name: change.name ?? null, invites: [] }, world);
}
