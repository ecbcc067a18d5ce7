import { Fault } from "../errors.ts";
import { type KeyId, newId, type RequestId } from "../ids.ts";
import type { CommitName } from "../wire/operations.ts";
import type { Where } from "./api.ts";
import { reservedTwice } from "./changes.ts";
import { type Change, commitChanges } from "./commit.ts";
import { enqueue, isQueued } from "./enqueue.ts";
import { type Model, putLocalLeaf, type Secret } from "./model.ts";
import { isAway, type Open, online } from "./opened.ts";
import { viewOf } from "./overlay.ts";
import type { QueuedOperation } from "./queue.ts";
import { type Session, wasUnsent } from "./session.ts";
import { synchronise } from "./sync.ts";
import { type HeldVault, refresh, withVault } from "./vaultbox.ts";

/** Where one write goes. */
export type Place = "server" | "local";

/** Where a write goes, and whether the vault keeps a copy. @throws Fault bad_input, conflict */
export function placeOf(open: Open, before: Secret | undefined, where: Where | null): { place: Place; keep: boolean } {
  const hasServer = open.box.model.bound !== null;
  if (!hasServer && (where === "server" || where === "both")) {
    throw new Fault("bad_input", "this profile has no server to store on", {
      hint: "use --store local, or register with a server",
    });
  }
  if (before) {
    const place = before.place === "local" ? "local" : "server";
    const asked = where === null ? place : where === "local" ? "local" : "server";
    if (asked !== place) {
      throw new Fault("conflict", `the secret lies ${place === "local" ? "in the local vault" : "on the server"}`, {
        hint: "remove it there first, or use another name",
      });
    }
    return { place, keep: where === null ? isKept(before) : where === "both" };
  }
  const chosen = where ?? (hasServer ? "both" : "local");
  return { place: chosen === "local" ? "local" : "server", keep: chosen === "both" };
}

/** Whether the vault keeps a copy of the newest value, or will. */
export function isKept(secret: Secret): boolean {
  if (secret.place !== "queued") return secret.place === "server" && secret.sealed !== null;
  const last = secret.waiting.findLast(({ entry }) => entry.sealed !== null);
  return last ? last.entry.keep : (secret.under?.sealed ?? null) !== null;
}

function needSession(open: Open): Session {
  if (open.session) return open.session;
  throw new Fault("unreachable", "the server is away, and this write must reach it", {
    hint: "use --store local, or try again later",
  });
}

/** Makes the changes of one write. */
export type Build = (model: Model) => Promise<readonly Change[]> | readonly Change[];

/** Commits on the server or in the vault, under the vault's lock. */
export async function write(open: Open, place: Place, operation: CommitName, build: Build): Promise<RequestId | null> {
  if (place === "local") {
    return withVault(open.box, open.around, (held) => writeLocal(open, held, build));
  }
  const session = needSession(open);
  return online(open, true, () =>
    withVault(open.box, open.around, (held) =>
      commitChanges(open.box.model, held, session, open.around, operation, () => build(viewOf(open.box.model))),
    ),
  );
}

async function writeLocal(open: Open, held: HeldVault, build: Build): Promise<null> {
  const { model } = open.box;
  for (const { leaf, sealed } of await build(viewOf(model))) putLocalLeaf(model, leaf, sealed);
  await held.save();
  return null;
}

/**
 * Ids for new secrets with the server's random bytes; drawn here where there is no server. Its answer also shows
 * whether another device wrote meanwhile, so that a free name is free on the newest state.
 */
export async function reserve(open: Open, place: Place, count: number): Promise<readonly Reserved[]> {
  const { random } = open.around;
  if (place === "local") {
    return Array.from({ length: count }, () => ({ keyId: newId<KeyId>(random), random: random(32) }));
  }
  const session = needSession(open);
  return online(open, true, async (at) => {
    const { output } = await session.call("secret.reserve", { count });
    if (output.items.length !== count) throw new Fault("integrity", "the server reserved another number of ids");
    if (at?.moved()) await synchronise(open.box.model, session, open.around);
    const ids = new Set(output.items.map(({ keyId }) => keyId));
    if (ids.size !== count || [...ids].some((keyId) => open.box.model.secrets.has(keyId))) throw reservedTwice();
    return output.items;
  });
}

/** An id for a new secret, with the 32 bytes that enter a generated value. */
export interface Reserved {
  readonly keyId: KeyId;
  readonly random: Uint8Array;
}

/** How a write is meant to end. */
export interface Wish {
  /** Insists on the server. */
  readonly insist: boolean;
  /** True where this command found the server away already. */
  readonly away: boolean;
}

/** What became of a write. */
export interface Done {
  readonly requestId: RequestId | null;
  /** True where it waits in the vault for a server that is away. */
  readonly queued: boolean;
}

/**
 * Sends what waits, so that a write builds on what is there.
 *
 * @returns Whether the server is away.
 */
export async function sendFirst(open: Open): Promise<boolean> {
  refresh(open.box);
  const { model } = open.box;
  if (model.bound === null) return false;
  if (open.session === null) return true;
  if (model.queue.length === 0) return false;
  try {
    await online(open, true, async () => undefined);
    return false;
  } catch (error) {
    if (!isAway(error)) throw error;
    return true;
  }
}

/** Ids as {@link reserve} gives them; where the server is away they are drawn here, and are not the last word. */
export async function reserveOrDraw(
  open: Open,
  place: Place,
  wish: Wish,
): Promise<{ readonly reserved: Reserved | undefined; readonly away: boolean }> {
  const drawn = async () => ({ reserved: (await reserve(open, "local", 1))[0], away: true });
  if (place === "server" && !wish.insist && wish.away) return drawn();
  try {
    return { reserved: (await reserve(open, place, 1))[0], away: false };
  } catch (error) {
    if (wish.insist || !isAway(error)) throw error;
    return drawn();
  }
}

/**
 * Commits a write where it belongs; where the server is away it waits in the vault, unless it was sent and its outcome
 * is unknown.
 *
 * @param known The secret as it was looked up.
 */
export async function writeOrQueue(
  open: Open,
  place: Place,
  operation: CommitName,
  known: Secret | undefined,
  wish: Wish,
  build: Build,
): Promise<Done> {
  if (place === "local") return { requestId: await write(open, place, operation, build), queued: false };
  const wait = !wish.insist && isQueued(operation) ? operation : null;
  const queue = async (name: QueuedOperation): Promise<Done> => {
    await enqueue(open.box, open.around, name, build);
    return { requestId: null, queued: true };
  };
  if (wait && (wish.away || known?.place === "queued")) return queue(wait);
  if (known?.place === "queued") {
    throw new Fault("unreachable", "an earlier change of this secret still waits for the server", {
      hint: "keyhold sync, then run the command again",
    });
  }
  let built = false;
  try {
    const requestId = await write(open, place, operation, (model) => {
      built = true;
      return build(model);
    });
    return { requestId, queued: false };
  } catch (error) {
    if (!wait || !isAway(error) || (built && !wasUnsent(error))) throw error;
    return queue(wait);
  }
}
