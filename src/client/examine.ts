import { X509Certificate } from "node:crypto";
import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { postOperation } from "../wire/transport.ts";
import { connect } from "./login.ts";
import type { Surroundings } from "./model.ts";
import type { ProfileServer } from "./profile.ts";

/** What can be seen of a profile's server without a login. */
export interface ServerFacts {
  /** Why it was not reached or not believed; null where it was. */
  readonly fault: Fault | null;
  /** Its clock minus this one in milliseconds, to about a second; null where it is not known. */
  readonly skewMs: number | null;
  /** End of the pinned authority's certificate; null in public mode. */
  readonly certificateEndsMs: number | null;
}

const STATEMENT_MAX_BYTES = 64 * 1_024;

/** Looks at a profile's server as a login would, up to its signed statement. Never throws a Fault. */
export async function examineServer(server: ProfileServer, around: Surroundings): Promise<ServerFacts> {
  try {
    const found = await connect(server, around);
    const { url, caPem, tlsCaPem } = found.server;
    const askedMs = around.now();
    const limits = { timeoutMs: DEFAULTS.requestTimeoutMs, maxReplyBytes: STATEMENT_MAX_BYTES };
    const address = { url, caPem, tlsCaPem };
    const { dateMs } = await postOperation(address, "server.statement", "{}", "application/json", limits);
    const middleMs = (askedMs + around.now()) / 2;
    return {
      fault: null,
      // the header has whole seconds, cut off
      skewMs: dateMs === null ? null : Math.round(dateMs + 500 - middleMs),
      certificateEndsMs: caPem === null ? null : Date.parse(new X509Certificate(caPem).validTo),
    };
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    return { fault: error, skewMs: null, certificateEndsMs: null };
  }
}
