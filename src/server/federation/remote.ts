import { rootCertificates } from "node:tls";
import { Fault } from "../../errors.ts";
import { DEFAULTS } from "../../protocol/defaults.ts";
import type { RemoteEngine, SignedVote } from "../../protocol/federation/policy.ts";
import { requestIdOf } from "../../protocol/federation/request.ts";
import { verifyVote } from "../../protocol/federation/votes.ts";
import { canonicalJson } from "../../wire/canonicaljson.ts";
import type { Of } from "../../wire/codec.ts";
import { engineInput, type RemoteQuestion, VERDICT_MAX, verdict } from "../../wire/federation/remoteengine.ts";

const TLS_1_3 = 0x0304;

/** How this server shows itself to engines, and whom it trusts for them; PEM. */
export interface EngineTls {
  /** The only authorities that count. */
  readonly caPem: string;
  /** Client certificate and key. */
  readonly certPem: string;
  readonly keyPem: string;
}

/** An engine's verdict as a vote; without one the reason, for the log. */
export type RemoteAnswer = { readonly vote: SignedVote } | { readonly vote: null; readonly why: string };

/**
 * Asks one remote engine about a request: one HTTPS POST of `{"input": …}` under TLS 1.3, with mutual authentication
 * where `tls` is given (docs/protocol.md §8.7). Redirects are not followed, the answer is bounded in time and size, and
 * a verdict counts only with the signature of the engine's key over this very request. Whatever fails is no verdict,
 * which is no consent; nothing is asked twice.
 *
 * @param tls Null: publicly trusted authorities, and no client certificate.
 */
export async function askRemote(
  engine: RemoteEngine,
  question: RemoteQuestion,
  tls: EngineTls | null,
): Promise<RemoteAnswer> {
  try {
    const answer = await post(engine, canonicalJson({ input: engineInput(question) }), tls);
    const vote = verdictVote(engine, question, resultOf(answer));
    const { nowMs } = question;
    if (!verifyVote(vote)) return { vote: null, why: "bad_signature" };
    if (vote.vote.castAtMs > nowMs + DEFAULTS.clockSkewMs) return { vote: null, why: "from_the_future" };
    if (vote.vote.expiresAtMs <= nowMs) return { vote: null, why: "expired" };
    return { vote };
  } catch (error) {
    return { vote: null, why: whyOf(error) };
  }
}

function whyOf(error: unknown): string {
  if (error instanceof Fault) return error.code;
  if (error instanceof DOMException && error.name === "TimeoutError") return "timed_out";
  const code = typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
  return typeof code === "string" && /^[A-Za-z0-9_]{1,64}$/.test(code) ? code : "failed";
}

function verdictVote(engine: RemoteEngine, { signed, policy }: RemoteQuestion, said: Of<typeof verdict>): SignedVote {
  const { federationId, epoch } = signed.request;
  const { castAtMs, expiresAtMs, reason, signature } = said;
  const requestId = requestIdOf(signed.request);
  const vote = {
    federationId,
    epoch,
    requestId,
    verdict: said.allow ? ("approve" as const) : ("reject" as const),
    policyHash: policy.headHash,
    castAtMs,
    expiresAtMs,
    reason,
    key: engine.key,
  };
  return { vote, signature };
}

/** Takes `result` alone: engines put statistics and the like beside it. */
function resultOf(answer: Uint8Array): Of<typeof verdict> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(answer));
  } catch {
    throw new Fault("bad_input", "the engine's answer is no JSON");
  }
  const result = typeof value === "object" && value !== null && "result" in value ? value.result : null;
  if (typeof result !== "object" || result === null) throw new Fault("bad_input", "the engine's answer has no result");
  return verdict.decode({ reason: "", ...result }, "result");
}

async function post(engine: RemoteEngine, body: string, tls: EngineTls | null): Promise<Uint8Array> {
  if (!engine.url.startsWith("https://")) throw new Fault("bad_input", "an engine is asked over https alone");
  const own = tls === null ? {} : { cert: tls.certPem, key: tls.keyPem };
  const ca = tls?.caPem ?? rootCertificates.join("\n");
  const secure = { ca, ...own, rejectUnauthorized: true, minVersion: TLS_1_3 };
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(new DOMException("", "TimeoutError")), engine.timeoutMs);
  try {
    const response = await fetch(engine.url, {
      method: "POST",
      body,
      headers: {
        "content-type": "application/json",
        accept: "application/json",
        "accept-encoding": "identity",
        "user-agent": "keyhold",
      },
      redirect: "manual",
      decompress: false,
      verbose: false,
      // a connection belongs to the certificate that opened it
      keepalive: false,
      signal: stop.signal,
      tls: secure,
    });
    if (response.status !== 200) throw new Fault("unavailable", "the engine does not answer with 200");
    return await readBounded(response);
  } finally {
    clearTimeout(timer);
    // ends a connection of which not everything was read
    stop.abort();
  }
}

async function readBounded(response: Response): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of response.body ?? []) {
    length += part.length;
    if (length > VERDICT_MAX) throw new Fault("too_large", "the engine's answer is too long");
    parts.push(part);
  }
  return new Uint8Array(Buffer.concat(parts));
}
