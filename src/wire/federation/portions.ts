import type { SignedMessage } from "../../protocol/federation/message.ts";
import { encodeJson } from "../codec.ts";
import { signedMessage } from "./records.ts";

/** Messages of one call: what fits a frame of 128 KiB with room to spare, in bytes of JSON, and how many. */
const CALL_MAX = { bytes: 96 * 1_024, messages: 128 } as const;

/** Parts of a list of messages, each of which one call carries. */
export function portions(messages: readonly SignedMessage[]): readonly (readonly SignedMessage[])[] {
  const parts: SignedMessage[][] = [];
  let size = Number.POSITIVE_INFINITY;
  for (const one of messages) {
    const bytes = encodeJson(signedMessage, one).length + 1;
    const last = parts.at(-1);
    if (last === undefined || size + bytes > CALL_MAX.bytes || last.length >= CALL_MAX.messages) {
      parts.push([one]);
      size = bytes;
    } else {
      last.push(one);
      size += bytes;
    }
  }
  return parts;
}
