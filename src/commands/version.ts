import { PROTOCOL_VERSION } from "../protocol/defaults.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { COMMIT, VERSION } from "../version.ts";

export default defineCommand({
  args: {},
  data: "{version, commit, protocol, bun}",
  examples: [["keyhold version --json", "version, commit, protocol and Bun's version"]],
  run: async () => {
    const info = { version: VERSION, commit: COMMIT, protocol: PROTOCOL_VERSION, bun: Bun.version };
    return result(info, () => `keyhold ${VERSION} (${COMMIT})`);
  },
});
