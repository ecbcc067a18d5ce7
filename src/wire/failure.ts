import { Fault } from "../errors.ts";

/** Where a connection failed: before anything can have reached the server, in TLS, or at an unknown point. */
type Stage = "connect" | "tls" | "unknown";

interface Reason {
  readonly stage: Stage;
  readonly why: string;
}

const REASONS: Readonly<Record<string, Reason>> = {
  ECONNREFUSED: { stage: "connect", why: "nothing listens there" },
  ENOTFOUND: { stage: "connect", why: "the host name is not known" },
  EAI_AGAIN: { stage: "connect", why: "the host name could not be looked up" },
  EHOSTUNREACH: { stage: "connect", why: "there is no way to the host" },
  ENETUNREACH: { stage: "connect", why: "there is no way to the network" },
  ENOENT: { stage: "connect", why: "nothing listens there" },
  ERR_PROXY_TUNNEL: { stage: "connect", why: "a proxy refused the connection" },
  CERT_HAS_EXPIRED: { stage: "tls", why: "its certificate has expired" },
  CERT_NOT_YET_VALID: { stage: "tls", why: "its certificate is not valid yet; check the clock" },
  ERR_TLS_CERT_ALTNAME_INVALID: { stage: "tls", why: "its certificate is not made for this host" },
  EPROTO: { stage: "tls", why: "it does not speak TLS 1.3" },
  ERR_SSL_WRONG_VERSION_NUMBER: { stage: "tls", why: "it does not speak TLS" },
  ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION: { stage: "tls", why: "it does not speak TLS 1.3" },
  ERR_SSL_UNSUPPORTED_PROTOCOL: { stage: "tls", why: "it does not speak TLS 1.3" },
};

const UNTRUSTED =
  /^(SELF_SIGNED_CERT|DEPTH_ZERO_SELF_SIGNED|UNABLE_TO_|CERT_UNTRUSTED|CERT_SIGNATURE|INVALID_CA|ERROR_IN_CERT)/;

function codeOf(error: unknown): string {
  if (typeof error !== "object" || error === null || !("code" in error)) return "";
  return typeof error.code === "string" ? error.code : "";
}

/** True when TLS failed because no trusted authority stands behind the certificate. */
export function isUntrusted(error: unknown): boolean {
  return UNTRUSTED.test(codeOf(error));
}

function reasonOf(error: unknown): Reason {
  const code = codeOf(error);
  const known = Object.hasOwn(REASONS, code) ? REASONS[code] : undefined;
  if (known) return known;
  if (UNTRUSTED.test(code)) return { stage: "tls", why: "its certificate is not signed by the expected authority" };
  if (/^(CERT_|ERR_SSL|ERR_TLS|CRL_|HOSTNAME_)/.test(code)) return { stage: "tls", why: "TLS failed" };
  if (error instanceof Error && error.name === "TimeoutError") {
    return { stage: "unknown", why: "it did not answer in time" };
  }
  return { stage: "unknown", why: "the connection broke" };
}

const undeliveredFaults = new WeakSet<Fault>();

/** Marks a failure that came before anything of the request can have left this machine. Gives it back. */
export function undelivered(fault: Fault): Fault {
  undeliveredFaults.add(fault);
  return fault;
}

/** True for a failure before anything was sent, as this process saw itself: what a server answers never counts. */
export function wasUndelivered(error: unknown): boolean {
  return error instanceof Fault && undeliveredFaults.has(error);
}

/**
 * The fault for a failed look or read, where nothing can be half done: tls_refused or unreachable.
 * Foreign errors stop here: their texts are not passed on.
 */
export function connectionFault(error: unknown, origin: string): Fault {
  if (error instanceof Fault) return error;
  const { stage, why } = reasonOf(error);
  if (stage === "tls") return undelivered(new Fault("tls_refused", `cannot trust ${origin}`, { why }));
  const fault = new Fault("unreachable", `cannot reach ${origin}`, { why });
  return stage === "connect" ? undelivered(fault) : fault;
}

/**
 * The fault for a failed request: unreachable or tls_refused when it surely wasn't delivered, else outcome_unknown.
 */
export function requestFault(error: unknown, origin: string): Fault {
  if (error instanceof Fault) return error;
  const { stage, why } = reasonOf(error);
  if (stage !== "unknown") return connectionFault(error, origin);
  return new Fault("outcome_unknown", `no answer from ${origin}`, { why });
}
