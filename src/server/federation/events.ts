import type { ErrorCode } from "../../errors.ts";
import type { FederatedKeyId, FederatedRequestId, RequestId } from "../../ids.ts";
import type { Tx } from "../../storage/store.ts";
import { appendEvent } from "../audit.ts";
import { accountsOf, type Holder } from "./connectors.ts";
import { shortId } from "./named.ts";
import type { FederationSite } from "./service.ts";

/** What happens to requests and keys, as the owner's log names it (docs/protocol.md §8.10). */
type FederationAction =
  | "federation.round"
  | "federation.seal"
  | "federation.use"
  | "federation.release"
  | "federation.reshare"
  | "federation.refusal"
  | "federation.freeze"
  | "federation.expire"
  | "federation.erase"
  | "federation.vote";

/** One entry of an account's log on this server. */
interface FederationEvent {
  /** Whose log: an account's; of what goes through a keyring that of the registry's connectors. */
  readonly owner: Holder;
  readonly action: FederationAction;
  /** `ok` as a rule; of a refusal or failure its code. */
  readonly status?: "ok" | ErrorCode;
  readonly keyId?: FederatedKeyId | null;
  readonly requestId?: FederatedRequestId | null;
}

/** Appends it in the transaction of what it tells; ids by their first 128 bits. */
export async function note(site: FederationSite, tx: Tx, event: FederationEvent): Promise<void> {
  for (const userId of await accountsOf(tx, event.owner))
    await appendEvent(site.ctx, tx, {
      userId,
      action: event.action,
      status: event.status ?? "ok",
      keyId: event.keyId ? shortId(event.keyId) : null,
      requestId: event.requestId ? (shortId(event.requestId) as string as RequestId) : null,
    });
}
