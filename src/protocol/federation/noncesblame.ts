import { equalBytes } from "../../crypto/bytes.ts";
import { isEquivocation } from "./blame.ts";
import { groupOf } from "./groups.ts";
import { type Culprit, messageSignatureHolds } from "./message.ts";
import { orderHash } from "./request.ts";
import type { Use } from "./use.ts";

/** True for nonces that are none, or two different ones, signed by the accused: what one signer may accuse another of. */
export function nonceBlameHolds({ certificate, order, manifest }: Use, { index, reason, evidence }: Culprit): boolean {
  const { parsePoint } = groupOf(certificate.type);
  const said = evidence.flatMap((one) => {
    const { message } = one;
    const { payload } = message;
    const genuine =
      message.from === index &&
      payload.round === "nonces" &&
      equalBytes(message.orderHash, orderHash(order)) &&
      messageSignatureHolds(manifest, one);
    return genuine && payload.round === "nonces" ? [{ message, payload }] : [];
  });
  const [first, second] = said;
  if (reason === "equivocation")
    return first !== undefined && second !== undefined && isEquivocation(first.message, second.message);
  return (
    reason === "bad_commitments" &&
    said.some(({ payload }) => {
      try {
        parsePoint(payload.hiding);
        parsePoint(payload.binding);
        return false;
      } catch {
        return true;
      }
    })
  );
}
