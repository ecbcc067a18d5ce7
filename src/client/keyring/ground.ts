import type { RandomSource } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { FederationId, UserId } from "../../ids.ts";
import type { InputOf, OperationName, OutputOf, SessionOperation } from "../../wire/operations.ts";
import type { Held } from "../federation/held.ts";
import type { ManifestSource } from "../federation/manifests.ts";

/** Operations of a registry that people's clients ask for. */
export type RegistryCall = Extract<SessionOperation, `keyring.${string}` | `workspace.${string}`>;

/** What the client's parts for keyrings need from around them. */
export interface Ground {
  /** Ed25519 identity of the registry, 32 bytes: the one that the profile pins. */
  readonly identity: Uint8Array;
  /** Stands for it in the policies of its workspaces. */
  readonly scope: FederationId;
  /** Where it is, as faults name it. */
  readonly url: string;
  /** This account there. */
  readonly userId: UserId;
  call<N extends RegistryCall>(operation: N, input: InputOf<N>): Promise<OutputOf<N>>;
  /** What needs no session. */
  ask(operation: "keyring.info" & OperationName, input: object): Promise<OutputOf<"keyring.info">>;
  /** The federation secret F, 32 bytes, lent. @throws Fault not_found on a device without it */
  secret(): Uint8Array;
  /** What the vault holds now; a change is on disk when its promise resolves. */
  held(): Held;
  change(change: (held: Held) => Held): Promise<void>;
  /** Manifests of earlier epochs, from the servers of a federation themselves. */
  manifestsFrom(servers: readonly { readonly url: string; readonly pin: string }[]): readonly ManifestSource[];
  readonly now: () => number;
  readonly random: RandomSource;
  /** Something the owner should read. */
  readonly notice: (text: string) => void;
}

/** What the registry shows cannot be. */
export function lie({ url }: Pick<Ground, "url">, message: string, why?: string): Fault {
  return new Fault("integrity", `the registry shows ${message}`, {
    ...(why !== undefined && { why }),
    culprits: [url],
  });
}

/** Runs a check of what the registry shows: whatever does not hold is its lie. @throws Fault integrity */
export function checked<T>(ground: Pick<Ground, "url">, message: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw lie(ground, message, error.message);
  }
}

/** Pages of one list that are read at most. */
const PAGES_MAX = 4_096;

/**
 * Everything of a list that comes in pages.
 *
 * @throws Fault integrity for a list without an end, or whose pages repeat what came before
 */
export async function everyPage<T>(
  ground: Pick<Ground, "url">,
  next: (last: T | null, count: number) => Promise<{ readonly items: readonly T[]; readonly more: boolean }>,
): Promise<readonly T[]> {
  const all: T[] = [];
  for (let page = 0; page < PAGES_MAX; page++) {
    const { items, more } = await next(all.at(-1) ?? null, all.length);
    all.push(...items);
    if (!more || items.length === 0) return all;
  }
  throw lie(ground, "a list without an end");
}

/** The one of several that a name, an id or the beginning of an id means. */
export function oneOf<T>(
  items: readonly T[],
  wanted: string,
  of: {
    readonly what: string;
    readonly name: (item: T) => string;
    readonly id: (item: T) => string;
    /** By which several of one name are told apart, beside the id; left out: the name alone. */
    readonly shown?: (item: T) => string;
    readonly hint: string;
  },
): T {
  const named = items.filter((item) => of.name(item) === wanted);
  const found =
    named.length > 0 || !/^[0-9a-f]{4,64}$/.test(wanted)
      ? named
      : items.filter((item) => of.id(item).startsWith(wanted));
  const [one, another] = found;
  if (one !== undefined && another === undefined) return one;
  if (one === undefined) throw new Fault("not_found", `there is no ${of.what} "${wanted}" here`, { hint: of.hint });
  throw new Fault("ambiguous", `more than one ${of.what} is called "${wanted}"`, {
    why: found.map((item) => `${(of.shown ?? of.name)(item)} ${of.id(item)}`).join(", "),
    hint: "give the beginning of its id",
  });
}
