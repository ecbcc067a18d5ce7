import { equalBytes, type RandomSource } from "../../crypto/bytes.ts";
import { Fault } from "../../errors.ts";
import type { CeremonyId, UserId } from "../../ids.ts";
import type { SignedCeremonyKey, Transcript } from "../../protocol/ceremony/model.ts";
import { ceremonyKeyHash, verifyCeremonyKey } from "../../protocol/ceremony/records.ts";
import type { InputOf, OperationName, OutputOf, SessionOperation } from "../../wire/operations.ts";
import { parsePin, pinOf } from "../../wire/pin.ts";
import type { OtpServer } from "../ceremonyapi.ts";
import { type Held, NOTHING_HELD } from "../federation/held.ts";
import { changeHeld, heldIn } from "../federation/keeping.ts";
import type { Reaching } from "../federation/members.ts";
import { callClear, connect } from "../login.ts";
import { boundOf, type Surroundings } from "../model.ts";
import { type Open, online } from "../opened.ts";
import type { Link } from "../session.ts";
import { CEREMONY_MAX } from "./held.ts";

/** Operations of the key store in the account's session. */
export type KeyStoreCall = Extract<SessionOperation, `ceremony.${string}` | `otp.${string}`>;

/** Operations that need no account. */
type Clear = Exclude<OperationName, SessionOperation>;

/** A server, and what is known of it from earlier. */
export interface Known extends OtpServer {
  readonly caPem?: string | null;
  readonly statementNumber?: number;
}

/** A server that answers without an account. */
export interface Asking {
  readonly url: string;
  readonly pin: string;
  /** Ed25519 identity that the pin names, 32 bytes. */
  readonly identity: Uint8Array;
  readonly caPem: string | null;
  readonly statementNumber: number;
  /** Null where it is asked over the session's link. */
  readonly link: Link | null;
  ask<N extends Clear>(operation: N, input: InputOf<N>): Promise<OutputOf<N>>;
}

/** What the client's parts for ceremonies and one-time codes need from around them. */
export interface Ground {
  readonly open: Open;
  /** The profile's server; null without one. */
  readonly place: OtpServer | null;
  /** Reaches a server by URL and pin, the profile's own over its session. @throws Fault unreachable, pin_mismatch … */
  at(server: Known): Promise<Asking>;
  /** The same as a relying service does: over a link of its own, with a token. */
  verify(server: Known, token: string, code: string): Promise<boolean>;
  /** The profile's server without its session. @throws Fault bad_input without one */
  home(): Promise<Asking>;
  /** Its identity, 32 bytes, and this account there. @throws Fault bad_input */
  account(): { readonly identity: Uint8Array; readonly userId: UserId; readonly name: string };
  call<N extends KeyStoreCall>(operation: N, input: InputOf<N>): Promise<OutputOf<N>>;
  held(): Held;
  /** A change is on disk when its promise resolves. */
  change(change: (held: Held) => Held): Promise<void>;
  /** Transcripts that were verified already, so that only what is new is fetched. */
  readonly transcripts: Map<CeremonyId, Transcript>;
  readonly now: () => number;
  readonly random: RandomSource;
  readonly notice: (text: string) => void;
}

/** What a server shows cannot be. */
export function lie(url: string, message: string, why?: string): Fault {
  return new Fault("integrity", `the server shows ${message}`, { ...(why !== undefined && { why }), culprits: [url] });
}

/** Runs a check of what a server shows: whatever does not hold is its lie. @throws Fault integrity */
export function checked<T>(url: string, message: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw lie(url, message, error.message);
  }
}

/** Servers' faults come without a hint: says on what it depends that a server keeps keys. */
export function sayNoKeyStore(error: unknown): never {
  if (!(error instanceof Fault) || error.code !== "unsupported") throw error;
  throw new Fault("unsupported", error.message, { hint: "ask its operator: keyhold serve says whether it keeps keys" });
}

/** What it takes to look at a ceremony: no vault, where the rest is kept in memory. */
export type Looking = Pick<Ground, "at" | "held" | "change" | "transcripts">;

/** Links to servers by URL and pin, each made once. */
function linkedServers(around: Surroundings, reach: typeof connect): (server: Known) => Promise<Asking> {
  const links = new Map<string, Asking>();
  return async ({ url, pin: given, caPem = null, statementNumber = 0 }) => {
    const pin = parsePin(given);
    const name = `${url} ${pin}`;
    const known = links.get(name);
    if (known) return known;
    const { link, server } = await reach({ url, pin, tlsCaPem: null, caPem, statementNumber }, around);
    const asking: Asking = {
      url,
      pin,
      identity: link.identity,
      caPem: server.caPem,
      statementNumber: server.statementNumber,
      link,
      async ask(operation, input) {
        try {
          return await callClear(link, operation, input);
        } catch (error) {
          // it may have been started anew, with another certificate
          if (error instanceof Fault && (error.code === "tls_refused" || error.code === "unreachable")) {
            links.delete(name);
          }
          return sayNoKeyStore(error);
        }
      },
    };
    if (pinOf(link.identity) !== pin) throw new Fault("pin_mismatch", "this is another server than the pinned one");
    links.set(name, asking);
    return asking;
  };
}

/** Ground for one look where there is no vault yet: what is learned is forgotten. */
export function passingGround(around: Surroundings, { reach = connect }: Reaching = {}): Looking {
  let held: Held = NOTHING_HELD;
  return {
    at: linkedServers(around, reach),
    held: () => held,
    async change(change) {
      held = change(held);
    },
    transcripts: new Map(),
  };
}

/** Makes the ground over an open vault. */
export function createGround(open: Open, place: OtpServer | null, { reach = connect }: Reaching = {}): Ground {
  const { now, random, notice } = open.around;
  const overLink = linkedServers(open.around, reach);

  /** The session's own server, while it is not found away. */
  function overSession({ url, pin }: Known): Asking | null {
    const { session, box } = open;
    const { bound } = box.model;
    if (session === null || bound === null || pinOf(bound.serverIdentity) !== pin || session.away()) return null;
    return {
      url,
      pin,
      identity: bound.serverIdentity,
      caPem: null,
      statementNumber: bound.statementNumber,
      link: null,
      ask: (operation, input) => session.ask(operation, input).catch(sayNoKeyStore),
    };
  }

  const at = async (server: Known) => overSession(server) ?? overLink(server);
  return {
    open,
    place,
    at,
    async verify(server, token, code) {
      const { link } = await overLink(server);
      if (link === null) throw new Fault("internal", "there is no link to this server");
      const { accepted } = await callClear(link, "otp.verify", { code }, token).catch(sayNoKeyStore);
      return accepted;
    },
    async home() {
      if (place === null) boundOf(open.box.model);
      return at(place ?? { url: "", pin: "" });
    },
    account() {
      const { serverIdentity: identity, userId, account: name } = boundOf(open.box.model);
      return { identity, userId, name };
    },
    call: (operation, input) =>
      online(open, true, async (there) => {
        if (!there) throw new Fault("unreachable", "the server is away");
        const { output } = await there.session.call(operation, input).catch(sayNoKeyStore);
        return output;
      }),
    held: () => heldIn(open),
    change: (change) => changeHeld(open, change),
    transcripts: new Map(),
    now,
    random,
    notice,
  };
}

/**
 * Holds a key pair for ceremonies to the server's identity, and to what was seen under its number before; the first
 * time it is pinned.
 *
 * @throws Fault integrity
 */
export async function pinKey(
  ground: Pick<Ground, "held" | "change">,
  { url, identity }: Pick<Asking, "url" | "identity">,
  signed: SignedCeremonyKey,
): Promise<void> {
  const { server, number } = checked(url, "a key for ceremonies that it did not sign", () => verifyCeremonyKey(signed));
  if (!equalBytes(server, identity)) throw lie(url, "another server's key for ceremonies");
  const hash = ceremonyKeyHash(signed.key);
  const find = (held: Held) =>
    held.ceremonyKeyPins.find((one) => one.number === number && equalBytes(one.server, server));
  const isKnown = (held: Held): boolean => {
    const known = find(held);
    if (!known || equalBytes(known.hash, hash)) return known !== undefined;
    throw lie(url, `another key for ceremonies under number ${number} than before`);
  };
  if (isKnown(ground.held())) return;
  await ground.change((held) => {
    if (isKnown(held)) return held;
    const ceremonyKeyPins = [...held.ceremonyKeyPins, { server, number, hash }].slice(-CEREMONY_MAX.keys);
    return { ...held, ceremonyKeyPins };
  });
}

/**
 * The newest of a server's key pairs for ceremonies, verified and pinned; never one before a newer one that was seen.
 *
 * @throws Fault integrity
 */
export async function newestKey(ground: Pick<Ground, "held" | "change">, asking: Asking): Promise<SignedCeremonyKey> {
  const { items } = await asking.ask("ceremony.keys", {});
  for (const one of items) await pinKey(ground, asking, one);
  const newest = items.reduce((a, b) => (b.key.number > a.key.number ? b : a));
  const seen = ground.held().ceremonyKeyPins.filter(({ server }) => equalBytes(server, asking.identity));
  if (seen.some(({ number }) => number > newest.key.number)) throw lie(asking.url, "an old key as its newest");
  return newest;
}
