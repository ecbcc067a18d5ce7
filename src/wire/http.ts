import { isIP } from "node:net";
import { Fault } from "../errors.ts";
import { FRAME_OVERHEAD } from "../protocol/channel.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import type { OperationName } from "./operations.ts";
import { operations } from "./operations.ts";

/** Where operations are posted to; the operation's name follows. */
export const OPERATION_PATH = "/v1/op/";

/** Largest request body in bytes: the body and its frame (docs/protocol.md §1.5). */
export const REQUEST_MAX = DEFAULTS.bodyBytes + FRAME_OVERHEAD;

export const JSON_TYPE = "application/json";
/** Sealed frames. */
export const FRAME_TYPE = "application/octet-stream";

/** The content type of an operation's request and of its successful reply. */
export function contentTypeOf(name: OperationName): typeof JSON_TYPE | typeof FRAME_TYPE {
  return operations[name].auth === "session" ? FRAME_TYPE : JSON_TYPE;
}

/** True for names and addresses that never leave this machine; IPv6 with or without brackets. */
export function isLoopback(host: string): boolean {
  const bare = bareHost(host).toLowerCase();
  if (bare === "localhost" || bare === "::1" || bare === "0:0:0:0:0:0:0:1") return true;
  return isIP(bare) === 4 && bare.startsWith("127.");
}

function bareHost(host: string): string {
  return host.startsWith("[") && host.endsWith("]") ? host.slice(1, -1) : host;
}

/** A server's URL, taken apart. */
export interface ServerUrl {
  /** `https://host:port`, without a path; the port stands only where it isn't the scheme's own. */
  readonly origin: string;
  /** IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
  readonly secure: boolean;
}

/**
 * Reads a server's URL: `https`, or `http` for a loopback host only; no user, path, query or fragment.
 *
 * @throws Fault bad_input, before anything is connected.
 */
export function parseServerUrl(text: string): ServerUrl {
  const url = URL.parse(text);
  if (!url || (url.protocol !== "https:" && url.protocol !== "http:") || url.hostname === "") {
    throw new Fault("bad_input", "a server's URL is https://HOST:PORT");
  }
  if (url.username || url.password || url.search || url.hash || (url.pathname !== "/" && url.pathname !== "")) {
    throw new Fault("bad_input", "a server's URL has no user, path, query or fragment");
  }
  const secure = url.protocol === "https:";
  if (!secure && !isLoopback(url.hostname)) {
    throw new Fault("bad_input", "plain http is refused beyond this machine", { hint: "use https://" });
  }
  const port = url.port === "" ? (secure ? 443 : 80) : Number(url.port);
  return { origin: url.origin, host: bareHost(url.hostname), port, secure };
}
