import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { openApi } from "../wire/openapi.ts";

/** `keyhold openapi` */
export default defineCommand({
  args: {},
  data: "an OpenAPI 3.1 document",
  details: `Describes what any HTTP client can call: facts about a server, and what a program reads of a workspace with its token
(keyhold workspace token create). Asks no server: it is the same for all servers of this version.`,
  examples: [["keyhold openapi > openapi.json", "for a generator of clients"]],
  run: async () => {
    const document = openApi();
    return result(document, () => JSON.stringify(document, null, 2), { bare: true });
  },
});
