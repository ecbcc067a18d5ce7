import { Fault } from "../../errors.ts";
import { type FederationId, newId, type RequestId } from "../../ids.ts";
import { DEFAULTS } from "../../protocol/defaults.ts";
import { type FederationServer, type Manifest, memberOf, rosterMin } from "../../protocol/federation/manifest.ts";
import type { InputOf, OutputOf, SessionOperation } from "../../wire/operations.ts";
import { connect } from "../login.ts";
import { isAway, type Open } from "../opened.ts";
import type { HeldFederation, HeldServer } from "./held.ts";
import { changeHeld, heldIn, newestOf, secretIn, serverIn, withFederation, withServers } from "./keeping.ts";
import { type Membership, openMembership } from "./membership.ts";

/** What one server answered, or why it did not. */
export type MemberAnswer<T> =
  | { readonly index: number; readonly ok: true; readonly value: T }
  | { readonly index: number; readonly ok: false; readonly fault: Fault; readonly absent: boolean };

/** Sessions with all servers of a federation: each is opened once, and again when it has ended. */
export interface Members {
  readonly federationId: FederationId;
  /** The newest pinned manifest. */
  readonly manifest: Manifest;
  /**
   * Calls one server.
   *
   * @throws Fault that names the server; one that is {@link isAway} means that it is absent
   */
  call<N extends SessionOperation>(index: number, operation: N, input: InputOf<N>): Promise<OutputOf<N>>;
  /** Calls servers side by side (default: all); none spoils another's answer. In the order of the manifest. */
  callAll<N extends SessionOperation>(
    operation: N,
    input: (server: FederationServer) => InputOf<N>,
    indices?: readonly number[],
  ): Promise<readonly MemberAnswer<OutputOf<N>>[]>;
  /** Opens sessions with all servers (with invites by URL where they ask for one): who is there. */
  openAll(invites?: ReadonlyMap<string, string>): Promise<readonly MemberAnswer<Membership>[]>;
  /** Ends the use of the sessions, and the sessions. */
  end(): Promise<void>;
}

/** How members are reached; tests bring their own way. */
export interface Reaching {
  readonly reach?: typeof connect;
}

/** How a failure at one server is told: with which server it was. */
export function atServer(server: Pick<FederationServer, "index" | "url">, error: unknown): Fault {
  if (!(error instanceof Fault)) throw error;
  const { code, message, why, hint, retryAfterMs, requestId } = error;
  return new Fault(code, `server ${server.index} (${server.url}): ${message}`, {
    ...(why !== undefined && { why }),
    ...(hint !== undefined && { hint }),
    ...(retryAfterMs !== undefined && { retryAfterMs }),
    ...(requestId !== undefined && { requestId }),
    ...(code === "integrity" && { culprits: [server.url] }),
  });
}

/** One server as it is used: at most one session, and what went wrong last. */
interface Slot {
  readonly server: FederationServer;
  opening: Promise<Membership> | null;
  open: Membership | null;
  /** Found away slowly: until then it is not waited for again. */
  awayUntilMs: number;
  away: Fault | null;
}

/**
 * The servers of a federation over one open vault. Nothing is sent before the first call.
 *
 * @throws Fault not_found on a device without the federation secret
 */
export function openMembers(open: Open, federation: HeldFederation, { reach = connect }: Reaching = {}): Members {
  const { federationId } = federation;
  const manifest = newestOf(federation);
  const { around } = open;
  secretIn(open);
  const slots = manifest.servers.map(
    (server): Slot => ({ server, opening: null, open: null, awayUntilMs: 0, away: null }),
  );
  const learned = new Map<number, HeldServer>();
  let ended = false;

  const slotOf = (index: number): Slot => {
    memberOf(manifest, index);
    const slot = slots.find((one) => one.server.index === index);
    if (!slot) throw new Fault("internal", "a member without a place");
    return slot;
  };
  const heldServer = (index: number): HeldServer => {
    const now = heldIn(open).federations.find((one) => one.federationId === federationId) ?? federation;
    return learned.get(index) ?? serverIn(now, index);
  };

  async function opened(slot: Slot, invite: string | null): Promise<Membership> {
    if (ended) throw new Fault("locked", "this client was closed");
    if (slot.open) return slot.open;
    if (slot.away && around.now() < slot.awayUntilMs) throw slot.away;
    const beganMs = around.now();
    const { server } = slot;
    const held = heldServer(server.index);
    slot.opening ??= openMembership({ secret: secretIn(open), federationId, server, held, invite, reach, around })
      .then(
        (membership) => {
          slot.open = membership;
          slot.away = null;
          if (JSON.stringify(membership.held) !== JSON.stringify(held)) learned.set(server.index, membership.held);
          if (ended) membership.session.forget();
          return membership;
        },
        (error: unknown) => {
          const fault = atServer(server, error);
          if (isAway(fault) && around.now() - beganMs > QUICK_MS) {
            slot.away = fault;
            slot.awayUntilMs = around.now() + DEFAULTS.awayMs;
          }
          throw fault;
        },
      )
      .finally(() => {
        slot.opening = null;
      });
    return slot.opening;
  }

  /** Who answers slowly when the others are there is absent for now; its session may still come. */
  async function patiently(slot: Slot, invite: string | null): Promise<Membership> {
    const opening = opened(slot, invite);
    opening.catch(() => undefined);
    return within(PATIENCE_MS, opening, () => {
      throw atServer(slot.server, new Fault("timed_out", "it does not answer"));
    });
  }

  /** What was learned goes to disk: accounts, authorities, statements. */
  async function keep(): Promise<void> {
    if (learned.size === 0) return;
    const news = [...learned.values()];
    await changeHeld(open, (held) => withFederation(held, federationId, (one) => withServers(one, news)));
    for (const one of news) if (learned.get(one.index) === one) learned.delete(one.index);
  }

  async function calling<N extends SessionOperation>(
    slot: Slot,
    operation: N,
    input: InputOf<N>,
  ): Promise<OutputOf<N>> {
    const requestId = newId<RequestId>(around.random);
    for (let again = false; ; again = true) {
      const { session } = await patiently(slot, null);
      try {
        return (await session.call(operation, input, requestId)).output;
      } catch (error) {
        const over = error instanceof Fault && error.code === "session_invalid";
        if (over || (isAway(error) && session.away())) {
          if (slot.open?.session === session) slot.open = null;
          session.forget();
        }
        if (!over || again) throw atServer(slot.server, error);
      }
    }
  }

  async function settled<T>(slot: Slot, work: () => Promise<T>): Promise<MemberAnswer<T>> {
    const { index } = slot.server;
    try {
      return { index, ok: true, value: await work() };
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      return { index, ok: false, fault: error, absent: isAway(error) };
    }
  }

  return {
    federationId,
    manifest,
    async call(index, operation, input) {
      try {
        return await calling(slotOf(index), operation, input);
      } finally {
        await keep();
      }
    },
    async callAll(operation, input, indices = manifest.servers.map((one) => one.index)) {
      const asked = slots.filter(({ server }) => indices.includes(server.index));
      const answers = asked.map((slot) => settled(slot, () => calling(slot, operation, input(slot.server))));
      const all = await Promise.all(answers);
      await keep();
      return all;
    },
    async openAll(invites = new Map()) {
      const all = await Promise.all(
        slots.map((slot) => settled(slot, () => patiently(slot, invites.get(slot.server.url) ?? null))),
      );
      await keep();
      return all;
    },
    async end() {
      ended = true;
      const closing = slots
        .flatMap(({ open: one }) => (one ? [one.session] : []))
        .map(async (session) => {
          try {
            await session.call("session.close", { sessionId: null, all: false });
          } catch (error) {
            if (!(error instanceof Fault)) throw error;
          } finally {
            session.forget();
          }
        });
      await within(END_MS, Promise.all(closing), () => []);
    },
  };
}

/** What `work` gives, or what `late` does once the time is over; leaves no timer behind. */
async function within<T>(ms: number, work: Promise<T>, late: () => T): Promise<T> {
  const over = Promise.withResolvers<T>();
  const timer = setTimeout(() => {
    try {
      over.resolve(late());
    } catch (error) {
      over.reject(error);
    }
  }, ms);
  try {
    return await Promise.race([work, over.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** A refusal that comes at once costs nothing to ask for again. */
const QUICK_MS = 500;
/** How long a server may take to let its owner in: two connections' limit. */
const PATIENCE_MS = 4 * DEFAULTS.connectTimeoutMs;
/** How long a client that is closed waits for its servers. */
const END_MS = 1_000;

/** Servers that must take part, so that what they do holds. */
export const enough = ({ servers, threshold }: Manifest): number => rosterMin(servers.length, threshold);
