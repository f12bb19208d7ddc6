test('app1');
