import { isAbsent } from "../client/federation/answers.ts";
import type { FleetInput, FleetOperation, FleetOutput } from "../client/federation/ground.ts";
import type { MemberPlace, Membership } from "../client/federation/membership.ts";
import type { RandomSource } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { newId, type RequestId } from "../ids.ts";
import type { Of } from "../wire/codec.ts";
import type { keyringOperations } from "../wire/keyring/operations.ts";
import type { InputOf, OutputOf, SessionOperation } from "../wire/operations.ts";

/** The connector's own key server. */
export interface OwnServer {
  /** @throws Fault; {@link isAway} means that it cannot be asked now */
  call<N extends FleetOperation>(name: N, input: FleetInput<N>): Promise<FleetOutput<N>>;
}

type Operations = typeof keyringOperations;
export type RegistryCall = "party.tasks" | "party.report" | "keyring.get" | "workspace.policy" | "keyring.enrol";

/** The registry, at whichever of its places answers. */
export interface RegistryEnd {
  /** @throws Fault; {@link isAway} means that none of its places can be asked now */
  call<N extends RegistryCall>(name: N, input: Of<Operations[N]["input"]>): Promise<Of<Operations[N]["output"]>>;
}

/** An end with sessions that are opened when they are needed, and again when they have ended. */
export interface SessionEnd {
  call<N extends SessionOperation>(name: N, input: InputOf<N>): Promise<OutputOf<N>>;
  /** The place that is used now. */
  place(): MemberPlace;
  /** Opens a session if there is none. */
  open(): Promise<Membership<MemberPlace>>;
  /** Closes the session, without waiting long. */
  end(): Promise<void>;
}

/** True for failures that say nothing about what was asked: whoever was asked is away, lets nobody in, or cannot write. */
export const isAway = (error: unknown): boolean =>
  error instanceof Fault && (isAbsent(error) || error.code === "replayed" || error.code === "storage");

/** So long a fallback is used before the preferred place is tried again, in milliseconds. */
export const BACK_MS = 60_000;
const CLOSE_MS = 1_000;

/**
 * Sessions with one server that may have several places, the preferred one first.
 *
 * @param enter Opens a session at a place; keeps what is to be remembered.
 */
export function sessionEnd(
  places: readonly MemberPlace[],
  enter: (place: MemberPlace) => Promise<Membership<MemberPlace>>,
  around: { readonly now: () => number; readonly random: RandomSource },
): SessionEnd {
  let at = 0;
  let sinceMs = around.now();
  let opened: Membership<MemberPlace> | null = null;
  let opening: Promise<Membership<MemberPlace>> | null = null;

  const place = (): MemberPlace => {
    const found = places[at];
    if (!found) throw new RangeError("a server has a place");
    return found;
  };

  function drop(one: Membership<MemberPlace>): void {
    if (opened === one) opened = null;
    one.session.forget();
  }

  function next(): void {
    at = (at + 1) % places.length;
    sinceMs = around.now();
  }

  async function open(): Promise<Membership<MemberPlace>> {
    if (at > 0 && around.now() - sinceMs > BACK_MS) {
      at = 0;
      sinceMs = around.now();
      if (opened) drop(opened);
    }
    if (opened) return opened;
    opening ??= enter(place())
      .then(
        (one) => {
          opened = one;
          return one;
        },
        (error: unknown) => {
          if (isAway(error)) next();
          throw error;
        },
      )
      .finally(() => {
        opening = null;
      });
    return opening;
  }

  return {
    place,
    open,
    async call(name, input) {
      const requestId = newId<RequestId>(around.random);
      let lastFault: Fault | null = null;
      // each place once, and once more where a session has merely ended
      for (let tries = 0; tries <= places.length; tries++) {
        let membership: Membership<MemberPlace>;
        try {
          membership = await open();
        } catch (error) {
          if (!(error instanceof Fault) || !isAway(error)) throw error;
          lastFault = error;
          if (tries + 1 >= places.length) throw error;
          continue;
        }
        try {
          return (await membership.session.call(name, input, requestId)).output;
        } catch (error) {
          if (!(error instanceof Fault) || !isAway(error)) throw error;
          const over = error.code === "session_invalid";
          if (over || membership.session.away() || error.code === "unreachable") drop(membership);
          if (!over && error.code === "rate_limited") throw error;
          if (!over) next();
          lastFault = error;
        }
      }
      throw lastFault ?? new Fault("unreachable", "it does not answer");
    },
    async end() {
      const one = opened;
      opened = null;
      if (one === null) return;
      const late = Promise.withResolvers<void>();
      const timer = setTimeout(() => late.resolve(), CLOSE_MS);
      const closing = one.session.call("session.close", { sessionId: null, all: false }).then(
        () => undefined,
        () => undefined,
      );
      await Promise.race([closing, late.promise]);
      clearTimeout(timer);
      one.session.forget();
    },
  };
}
