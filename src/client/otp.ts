import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Field } from "../protocol/content.ts";
import { type OtpKey, otpCode, otpUri, parseOtpUri } from "../protocol/otp.ts";
import { isCustodial } from "../protocol/provenance.ts";
import type { Got, OtpCode, StoreInput } from "./api.ts";
import type { Open } from "./opened.ts";
import { getSecret } from "./reading.ts";
import { storeSecret } from "./writing.ts";

/** Where a secret keeps its one-time password: as its value, or in a field. */
interface Kept {
  readonly key: OtpKey;
  /** What to store so that the next code has the next counter. */
  readonly advance: (next: OtpKey) => Pick<StoreInput, "value" | "fields">;
}

function keptIn({ info, value, fields }: Got): Kept {
  if (info.type === "totp" || info.type === "hotp") {
    const key = parseOtpUri(new TextDecoder().decode(value ?? new Uint8Array(0)));
    return { key, advance: (next) => ({ value: new TextEncoder().encode(otpUri(next)) }) };
  }
  const field = fields?.find(({ kind }) => kind === "otp");
  if (!field) {
    throw new Fault("not_found", "this secret has no one-time password", {
      hint: "keyhold otp add NAME gives it one",
    });
  }
  const put = (next: OtpKey): readonly Field[] =>
    (fields ?? []).map((one) => (one === field ? { ...one, value: otpUri(next) } : one));
  return { key: parseOtpUri(field.value), advance: (next) => ({ value: null, fields: put(next) }) };
}

/**
 * The code of now, or of the next counter. A counter is stored, one higher, before its code is shown: no code is shown
 * twice, at the price of one that is lost when the command is cut short in between (RFC 4226 §7.2).
 *
 * @throws Fault not_found, conflict when another device took the counter meanwhile
 */
export async function secretOtp(open: Open, input: { name: string; fresh: boolean }): Promise<OtpCode> {
  const got = await getSecret(open, { ...input, version: null, reveal: true, save: false });
  try {
    const { key, advance } = keptIn(got);
    try {
      const { code, untilMs } = otpCode(key, open.around.now());
      const expiresAt = untilMs === null ? null : new Date(untilMs).toISOString();
      const shown = { name: got.info.name, code, expiresAt, periodS: key.kind === "totp" ? key.period : null };
      if (key.kind === "totp") return { ...shown, requestId: got.requestId, queued: false };
      const next = advance({ ...key, counter: key.counter + 1 });
      const { name, version: ifVersion, origin } = got.info;
      const about = { name, type: null, tags: [], where: null, ifVersion };
      const { requestId, queued } = await storeSecret(open, {
        ...about,
        ...next,
        // another counter, and the same key
        ...(isCustodial(origin) ? { origin } : {}),
      });
      return { ...shown, requestId, queued };
    } finally {
      wipe(key.secret);
    }
  } finally {
    wipe(got.value ?? undefined);
  }
}
