import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { dataOf, errorOf, type Home, openWorld, SETUP_MS, type World } from "./world.ts";

setDefaultTimeout(60_000);
let world: World;
let home: Home;
const TYPES = ["secp256k1", "p256", "ed25519", "x25519"] as const;
beforeAll(async () => {
  world = await openWorld();
  home = await world.home("owner").register("owner");
  for (const type of TYPES) await home.ok(["generate", type, "--type", type]);
}, SETUP_MS);
afterAll(() => world.close());

/** Which of the types can spend from such an address. */
const SPENDS = {
  evm: ["secp256k1"],
  "btc-p2wpkh": ["secp256k1"],
  "btc-p2tr": ["secp256k1"],
  cosmos: ["secp256k1"],
  solana: ["ed25519"],
  "zcash-p2pkh": ["secp256k1"],
} as const;

for (const [as, types] of Object.entries(SPENDS)) {
  test(`${as}: of a key that can spend from it, and of no other`, async () => {
    for (const type of TYPES) {
      const ran = await home.run(["key", "address", type, "--as", as, "--json"]);
      if (types.some((one) => one === type))
        expect(dataOf(ran).data).toMatchObject({ as, address: expect.any(String) });
      else expect([type, ran.code, errorOf(ran).code]).toEqual([type, 2, "bad_input"]);
    }
  });
}
