import { rm } from "node:fs/promises";
import { join } from "node:path";
import { type RandomSource, wipe } from "../crypto/bytes.ts";
import { createServerSetup } from "../crypto/opaque.ts";
import { Fault } from "../errors.ts";
import type { UserId } from "../ids.ts";
import type { AccountRow } from "../storage/store.ts";
import type { ControlInput, ControlOutput } from "../wire/control.ts";
import { syncDirectory } from "../wire/keyfiles.ts";
import { renewAccountName } from "./accounts.ts";
import type { ServerContext } from "./context.ts";
import { directoryPaths, finishRotation, prepareRotation, type RotatedKey, type ServerKeys } from "./directory.ts";
import { renewFactor } from "./factor.ts";
import { announceKeys, claimKeys } from "./keycheck.ts";
import type { Logbook } from "./logbook.ts";

/** What a rotation needs of the server that runs on the directory. */
export interface RotationSite {
  readonly dir: string;
  readonly ctx: ServerContext;
  readonly logbook: Pick<Logbook, "resign">;
  readonly random: RandomSource;
  readonly keys: () => ServerKeys;
  /** Serves under other keys from now on, and says so in the statement. */
  readonly apply: (keys: ServerKeys) => Promise<void>;
  /**
   * Makes the next key pair for ceremonies; says how many before it are kept.
   *
   * @param force With a new enclave, where the one of before is lost.
   * @throws Fault conflict, unsupported
   */
  readonly rotateCeremonyKey: (force: boolean) => Promise<number>;
}

const PAGE = 200;

async function* allAccounts(ctx: ServerContext): AsyncGenerator<AccountRow> {
  for (let after: UserId | null = null; ; ) {
    const from: UserId | null = after;
    const page: readonly AccountRow[] = await ctx.store.transaction((tx) => tx.accounts(from, PAGE));
    yield* page;
    const last = page.at(-1);
    if (!last || page.length < PAGE) return;
    after = last.userId;
  }
}

/** Sessions and half logins, whose keys lie under the sealing key: who had it may know them. */
async function endSessions({ store }: ServerContext): Promise<void> {
  await store.transaction(async (tx) => {
    await tx.sweepSessions(Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
    await tx.dropLoginStates();
  });
}

/** Seals everything under the key of now, then forgets the one before. */
async function completeSealing({ dir, ctx, random, keys, apply }: RotationSite): Promise<void> {
  // until a pass finds none: an account may have been made meanwhile, under the key before
  while ((await renewRows(ctx)) > 0);
  await endSessions(ctx);
  await finishRotation(dir, "sealing", keys(), random);
  const { previousSealing } = keys();
  await apply({ ...keys(), previousSealing: null });
  wipe(previousSealing ?? undefined);
}

/** Names and second factors. */
async function renewRows(ctx: ServerContext): Promise<number> {
  let count = 0;
  for await (const account of allAccounts(ctx)) {
    const { userId } = account;
    const sealed = renewAccountName(ctx, account);
    if (sealed) await ctx.store.transaction((tx) => tx.putSealedName(userId, sealed));
    const factor = await ctx.store.transaction((tx) => renewFactor(ctx, tx, userId), userId);
    if (sealed || factor) count += 1;
  }
  return count;
}

/** One checkpoint under both log keys, then under the new one alone. */
async function completeLog({ dir, logbook, random, keys, apply }: RotationSite): Promise<void> {
  await logbook.resign();
  await finishRotation(dir, "log", keys(), random);
  await apply({ ...keys(), previousLog: null });
  await logbook.resign();
}

/** Completes what a rotation that was cut short left undone: at the start, before requests are served. */
export async function completeRotations(site: RotationSite): Promise<void> {
  if (site.keys().previousSealing) await completeSealing(site);
  if (site.keys().previousLog) await completeLog(site);
}

async function replaceKey(site: RotationSite, key: RotatedKey): Promise<void> {
  const { dir, ctx, random, keys, apply } = site;
  const prepared = await prepareRotation(dir, key, keys(), {
    random,
    createOpaqueSetup: async () => createServerSetup(),
  });
  await ctx.store.transaction((tx) => announceKeys(tx, prepared.next));
  await prepared.write();
  await claimKeys(ctx.store, prepared.next, dir);
  await apply(prepared.next);
}

async function remaining({ ctx }: RotationSite, setupId: string): Promise<number> {
  let count = 0;
  for await (const account of allAccounts(ctx)) if (account.setupId === setupId) count += 1;
  return count;
}

/**
 * Replaces one of the server's keys while it runs (docs/operations.md). Killed at any point, the server starts again
 * with either key and completes the rest.
 *
 * @throws Fault conflict while the rotation before is not complete; not_found, unsupported, storage
 */
export async function rotateKey(site: RotationSite, input: ControlInput<"rotate">): Promise<ControlOutput<"rotate">> {
  const { dir, keys, random, apply } = site;
  const done = { key: input.key, restart: false, remaining: 0 };
  switch (input.key) {
    case "tls": {
      const at = directoryPaths(dir).keys;
      await rm(join(at, "tls.crt"), { force: true });
      await rm(join(at, "tls.key"), { force: true });
      await syncDirectory(at);
      return { ...done, restart: true };
    }
    case "sealing":
      await replaceKey(site, "sealing");
      await completeSealing(site);
      return done;
    case "audit-key":
      await replaceKey(site, "log");
      await completeLog(site);
      return done;
    case "ceremony":
      return { ...done, remaining: await site.rotateCeremonyKey(input.force) };
    case "opaque": {
      await replaceKey(site, "opaque");
      const { previous } = keys().opaque;
      return { ...done, remaining: previous ? await remaining(site, previous.id) : 0 };
    }
    case "opaque-finish": {
      const { current, previous } = keys().opaque;
      if (!previous) throw new Fault("not_found", "one OPAQUE set-up is in use: there is nothing to finish");
      const left = await remaining(site, previous.id);
      if (left > 0 && !input.force) {
        throw new Fault("conflict", `${left} accounts have not logged in since the rotation`, {
          why: "without the set-up before, they come back by their recovery kit alone",
          hint: "wait, or: keyhold server rotate --opaque --finish --yes",
        });
      }
      await finishRotation(dir, "opaque", keys(), random);
      await apply({ ...keys(), opaque: { current, previous: null } });
      return { ...done, remaining: left };
    }
  }
}
