const HEX = /^(0x)?([0-9a-fA-F]{2})*$/;
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;

/** A transaction as tools write it: bytes, hex digits or base64. */
export function transactionBytes(content: Uint8Array): Uint8Array {
  const text = new TextDecoder().decode(content).trim();
  if (text !== "" && HEX.test(text)) return Uint8Array.fromHex(text.replace(/^0x/, ""));
  if (text.startsWith("cHNidP") && BASE64.test(text)) return Uint8Array.fromBase64(text);
  return content;
}
