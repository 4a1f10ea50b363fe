#!/usr/bin/env node
// Starts the command line from source: Node 20 does not read TypeScript by itself, tsx does.

import { register } from 'tsx/esm/api'

register()
await import('../src/cli/luthier.ts')
