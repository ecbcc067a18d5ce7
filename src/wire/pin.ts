import { Fault } from "../errors.ts";

export { pinOf, pinOfSpki } from "../crypto/pin.ts";

const PIN_TEXT = /^sha256:[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/;

/**
 * Checks the form of a pin that a person typed.
 *
 * @throws Fault bad_input
 */
export function parsePin(text: string): string {
  if (!PIN_TEXT.test(text)) {
    throw new Fault("bad_input", "a pin is sha256: and 43 characters", {
      hint: "copy the pin that `keyhold serve` prints",
    });
  }
  return text;
}
