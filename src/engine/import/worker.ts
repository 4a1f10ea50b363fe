// The entry of the thread that looks at models from outside.

import { serve } from '../runtime/thread.ts'
import { checkImport } from './check.ts'
import type { ImportEvent, ImportRequest } from './request.ts'

serve<ImportRequest, ImportEvent>((request, { signal }) => checkImport(request, signal))
