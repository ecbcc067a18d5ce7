import { internal, root } from "./commands/index.ts";
import { start } from "./ui/start.ts";

await start(root, internal);
