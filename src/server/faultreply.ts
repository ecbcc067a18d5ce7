import { Fault } from "../errors.ts";
import { encodeJson } from "../wire/codec.ts";
import { errorBody } from "../wire/operations.ts";
import type { Reply } from "./clear.ts";

/** Any failure as a Fault; what is not one of ours says nothing of itself. */
export function asFault(error: unknown): Fault {
  return error instanceof Fault ? error : new Fault("internal", "the server failed");
}

/** A typed error in clear. */
export function faultReply(fault: Fault): Reply {
  const body = encodeJson(errorBody, {
    code: fault.code,
    message: fault.message,
    retryAfterMs: fault.retryAfterMs === undefined ? null : Math.ceil(fault.retryAfterMs),
  });
  const base = { status: fault.http, contentType: "application/json", body, outcome: fault.code } as const;
  return fault.retryAfterMs === undefined ? base : { ...base, retryAfterMs: fault.retryAfterMs };
}
