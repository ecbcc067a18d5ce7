import type { KeyholdClient } from "../client/api.ts";
import type { FederatedKeyInfo, FederatedRequestInfo, FederatedResult } from "../client/federationapi.ts";
import { Fault } from "../errors.ts";
import { type Result, result } from "../ui/output.ts";
import { plain } from "../ui/text.ts";

/** States of a request after which nothing more comes. */
const ENDED = new Set(["fulfilled", "degraded", "rejected", "expired", "cancelled", "failed"]);

/** True for a request that is over. */
export const hasEnded = (status: string): boolean => ENDED.has(status);

const WORDS: Readonly<Record<string, string>> = {
  awaiting_approval: "waits for approval",
  pending: "waits for enough servers",
};

/** What a key or a use led to: exit 9 while it waits, 10 where servers were left out. @throws Fault denied, timed_out, conflict */
export function federatedResult(
  made: FederatedResult,
  shown: (made: FederatedResult) => string,
  goOn = "keyhold request watch",
): Result {
  const { status, requestId } = made;
  if (status === "fulfilled") return result(made, () => shown(made));
  if (status === "degraded") {
    const left = `left out: ${made.absent.join(", ")}   (keyhold federation check)`;
    return result(made, () => [shown(made), left].filter((line) => line !== "").join("\n"), { exit: 10 });
  }
  if (hasEnded(status)) {
    const code = status === "rejected" ? "denied" : status === "expired" ? "timed_out" : "conflict";
    throw new Fault(code, `the request was ${status}`, { hint: `keyhold request show ${requestId}` });
  }
  const lines = [
    `request ${requestId} ${WORDS[status] ?? status}`,
    `To go on when it can: ${goOn} ${requestId.slice(0, 16)}`,
  ];
  return result(made, () => lines.join("\n"), { exit: 9 });
}

/** A request for people: facts, what each server says, the votes. */
export function requestLines(info: FederatedRequestInfo): string {
  const name = info.name === null ? "" : ` "${plain(info.name)}"`;
  const facts = info.facts.map(({ label, value }) => `  ${plain(label).padEnd(12)}  ${plain(value)}`);
  const servers = info.servers.map(
    (s) => `  ${s.index}  ${plain(s.url)}  ${s.status.replaceAll("_", " ")}${s.why === "" ? "" : `: ${plain(s.why)}`}`,
  );
  const votes = info.votes.map(
    (v) =>
      `  ${v.verdict === "approve" ? "✔" : "✘"} ${plain(v.approver)}${v.reason === "" ? "" : `: ${plain(v.reason)}`}`,
  );
  const culprits = info.culprits.map((c) => `  ✘ ${c.index}  ${plain(c.url)}  ${c.reason.replaceAll("_", " ")}`);
  return [
    `${info.kind}${name}: ${info.status.replaceAll("_", " ")}`,
    `  request       ${info.requestId}`,
    `  words         ${info.words.join(" ")}   (compare them aloud)`,
    `  requested by  ${info.requesterHex}`,
    `  expires       ${info.expiresAt}`,
    ...facts,
    ...(servers.length > 0 ? ["Servers", ...servers] : []),
    ...(votes.length > 0 ? ["Votes", ...votes] : []),
    ...(culprits.length > 0 ? ["Proven to have cheated", ...culprits] : []),
  ].join("\n");
}

/** The one request that an id, or the start of one, means. @throws Fault not_found, ambiguous */
export function requestOf(all: readonly FederatedRequestInfo[], text: string): FederatedRequestInfo {
  const found = all.filter((one) => one.requestId === text || (text.length >= 6 && one.requestId.startsWith(text)));
  const [first] = found;
  if (first && found.length === 1) return first;
  if (first)
    throw new Fault("ambiguous", `more than one request begins with "${text}"`, { hint: "give more of its id" });
  throw new Fault("not_found", `there is no request "${text}"`, {
    hint: text.length < 6 ? "give at least 6 digits of its id: keyhold request list" : "keyhold request list",
  });
}

/** The key of a federation that a name, an id, or the start of an id means; null where there is none. */
export async function federatedKeyOf(client: KeyholdClient, text: string): Promise<FederatedKeyInfo | null> {
  const all = await client.federatedKeys();
  const named = all.find((key) => key.name === text || key.keyId === text);
  if (named) return named;
  const found = all.filter((key) => text.length >= 8 && key.keyId.startsWith(text));
  return found.length === 1 ? (found[0] ?? null) : null;
}
