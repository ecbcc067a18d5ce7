import { Fault } from "../errors.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { type Codec, schemaOf, text } from "./codec.ts";

const nameText = text({ min: 1, max: DEFAULTS.accountNameBytes, pattern: /^[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+$/u });

/** Account name: NFC, 1 to 128 bytes, no control characters. One of another form looks the same and is refused. */
export const accountName: Codec<string> = {
  decode: (value, path) => {
    const name = nameText.decode(value, path);
    if (name !== name.normalize("NFC")) throw new Fault("bad_input", `${path || "body"} must be in normal form C`);
    return name;
  },
  encode: nameText.encode,
  schema: () => schemaOf(nameText),
};
