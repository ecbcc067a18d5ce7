import { Fault } from "../errors.ts";
import type { KeyId, RequestId } from "../ids.ts";
import { GET_KEYS_MAX } from "../wire/operations.ts";
import type { Session } from "./session.ts";

/** Asks the server for values of this account. */
export async function fetchSealed(
  session: Session,
  purpose: "secret.get" | "secret.export",
  keys: readonly { keyId: KeyId; version: number }[],
): Promise<{ sealed: readonly Uint8Array[]; requestId: RequestId }> {
  const sealed: Uint8Array[] = [];
  let requestId: RequestId | undefined;
  while (sealed.length < keys.length) {
    const wanted = keys.slice(sealed.length, sealed.length + GET_KEYS_MAX);
    const answer = await session.call(purpose, { keys: wanted });
    requestId ??= answer.requestId;
    const { items } = answer.output;
    const fits =
      items.length > 0 &&
      items.every((item, i) => item.keyId === wanted[i]?.keyId && item.version === wanted[i].version);
    if (!fits)
      throw new Fault("integrity", "the server answered with other secrets than it was asked for", { requestId });
    sealed.push(...items.map((item) => item.sealed));
  }
  if (!requestId) throw new Fault("internal", "nothing was asked for");
  return { sealed, requestId };
}
