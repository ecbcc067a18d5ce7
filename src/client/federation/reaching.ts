import { Fault } from "../../errors.ts";
import type { FederationServer } from "../../protocol/federation/manifest.ts";
import type { InputOf, OperationName, OutputOf } from "../../wire/operations.ts";
import { callClear, type connect } from "../login.ts";
import type { Surroundings } from "../model.ts";
import type { Link } from "../session.ts";
import type { ManifestSource } from "./manifests.ts";

/** A server that is asked without an account. */
export interface Asked {
  readonly link: Link;
  readonly caPem: string | null;
  readonly statementNumber: number;
  ask<N extends OperationName>(operation: N, input: InputOf<N>): Promise<OutputOf<N>>;
}

/** Reaches a server by URL and pin. @throws Fault unreachable, tls_refused, pin_mismatch, integrity */
export async function askServer(
  { url, pin }: Pick<FederationServer, "url" | "pin">,
  reach: typeof connect,
  around: Surroundings,
  known: { readonly caPem: string | null; readonly statementNumber: number } = { caPem: null, statementNumber: 0 },
): Promise<Asked> {
  const { link, server } = await reach({ url, pin, tlsCaPem: null, ...known }, around);
  const { caPem, statementNumber } = server;
  return { link, caPem, statementNumber, ask: (operation, input) => callClear(link, operation, input) };
}

/** Work of one of several servers: its result, or the fault that it ended with. */
export type Tried<S, T> =
  | { readonly server: S; readonly ok: true; readonly value: T }
  | { readonly server: S; readonly ok: false; readonly fault: Fault };

/** Works with servers side by side, so that none holds up or spoils the others. */
export function tryAll<S, T>(servers: readonly S[], work: (server: S) => Promise<T>): Promise<readonly Tried<S, T>[]> {
  return Promise.all(
    servers.map(async (server): Promise<Tried<S, T>> => {
      try {
        return { server, ok: true, value: await work(server) };
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        return { server, ok: false, fault: error };
      }
    }),
  );
}

/** The manifests that a server has of earlier epochs. */
export function sourceAt({ ask }: Asked): ManifestSource {
  return async (federationId, epoch) => {
    try {
      const { proposal, state } = await ask("federation.proposal", { federationId, epoch });
      return state === "member" ? proposal : null;
    } catch (error) {
      if (error instanceof Fault && error.code !== "integrity") return null;
      throw error;
    }
  };
}
