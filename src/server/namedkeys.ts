import type { KeyId } from "../ids.ts";

/** Ids that a well-formed but failing request named, for its audit entry; at most the first. */
export function namedKeys(input: unknown): KeyId[] {
  if (typeof input !== "object" || input === null) return [];
  if ("keyId" in input && typeof input.keyId === "string") return [input.keyId as KeyId];
  const items = "keys" in input ? input.keys : "changes" in input ? input.changes : null;
  const first: unknown = Array.isArray(items) ? items[0] : null;
  if (typeof first !== "object" || first === null) return [];
  if ("keyId" in first && typeof first.keyId === "string") return [first.keyId as KeyId];
  if ("leaf" in first && typeof first.leaf === "object" && first.leaf !== null && "keyId" in first.leaf) {
    return typeof first.leaf.keyId === "string" ? [first.leaf.keyId as KeyId] : [];
  }
  return [];
}
